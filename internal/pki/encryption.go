package pki

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"sigs.k8s.io/yaml"
)

// encryptionConfig is the part of upstream's EncryptionConfiguration that we use. There is no
// "identity" provider on purpose: data that was never encrypted is not accepted as a Secret.
type encryptionConfig struct {
	APIVersion string               `json:"apiVersion"`
	Kind       string               `json:"kind"`
	Resources  []encryptionResource `json:"resources"`
}

type encryptionResource struct {
	Resources []string             `json:"resources"`
	Providers []encryptionProvider `json:"providers"`
}

type encryptionProvider struct {
	Secretbox secretbox `json:"secretbox"`
}

type secretbox struct {
	Keys []encryptionKey `json:"keys"`
}

type encryptionKey struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// keyLen is XSalsa20-Poly1305's. Its 24 byte random nonces never repeat, so (unlike with AES-GCM)
// no number of writes forces a rotation.
const keyLen = 32

// EncryptionKeys returns the names of the keys for data at rest, the one that encrypts first.
func (a *Authority) EncryptionKeys() ([]string, error) {
	var names []string
	for _, k := range a.ring().Encryption {
		names = append(names, k.Name)
	}
	return names, nil
}

// AddEncryptionKey makes a key and puts it first on this node: new writes use it, the old keys
// still decrypt. It returns the new key's name. Stored data must then be rewritten before
// DropEncryptionKeys. Where other nodes read what this one writes, take RotateEncryptionKey, which
// lets all of them know a key before one uses it.
func (a *Authority) AddEncryptionKey() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.ring().successor()
	k, err := newEncryptionKey(nextName(b.Encryption))
	if err != nil {
		return "", err
	}
	b.Encryption = append([]encryptionKey{k}, b.Encryption...)
	return k.Name, a.change(b)
}

// DropEncryptionKeys forgets every key but the first. Data under another key is lost by that.
func (a *Authority) DropEncryptionKeys() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.ring().successor()
	if len(b.Encryption) == 1 {
		return nil
	}
	b.Encryption = b.Encryption[:1]
	return a.change(b)
}

// loadEncryption reads the keys in the file, or makes it with one.
func loadEncryption(path string) ([]encryptionKey, error) {
	data, err := os.ReadFile(path) // #nosec G304 -- our own directory
	if errors.Is(err, fs.ErrNotExist) {
		k, err := newEncryptionKey("key1")
		if err != nil {
			return nil, err
		}
		keys := []encryptionKey{k}
		if data, err = encodeEncryption(keys); err != nil {
			return nil, err
		}
		return keys, WriteFile(path, data)
	}
	if err != nil {
		return nil, fmt.Errorf("read encryption keys: %w", err)
	}
	c, err := parseEncryption(data)
	if err != nil {
		return nil, fmt.Errorf("read encryption keys %s: %w; restore the file from a backup", path, err)
	}
	return *c.keys(), nil
}

func parseEncryption(data []byte) (*encryptionConfig, error) {
	c := &encryptionConfig{}
	if err := yaml.UnmarshalStrict(data, c); err != nil {
		return nil, err
	}
	if c.Kind != "EncryptionConfiguration" || len(c.Resources) != 1 || len(c.Resources[0].Providers) != 1 {
		return nil, errors.New("not the configuration that this program writes")
	}
	if len(*c.keys()) == 0 {
		return nil, errors.New("no key")
	}
	for _, k := range *c.keys() {
		if raw, err := base64.StdEncoding.DecodeString(k.Secret); err != nil || len(raw) != keyLen {
			return nil, fmt.Errorf("key %q is damaged", k.Name)
		}
	}
	return c, nil
}

func encodeEncryption(keys []encryptionKey) ([]byte, error) {
	data, err := yaml.Marshal(&encryptionConfig{
		APIVersion: "apiserver.config.k8s.io/v1",
		Kind:       "EncryptionConfiguration",
		Resources: []encryptionResource{{
			Resources: []string{"secrets"},
			Providers: []encryptionProvider{{Secretbox: secretbox{Keys: keys}}},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("write encryption keys: %w", err)
	}
	return append([]byte("# Keys for Secrets at rest. The first encrypts, all decrypt. Without this file they are lost.\n"), data...), nil
}

func (c *encryptionConfig) keys() *[]encryptionKey {
	return &c.Resources[0].Providers[0].Secretbox.Keys
}

func newEncryptionKey(name string) (encryptionKey, error) {
	raw := make([]byte, keyLen)
	if _, err := rand.Read(raw); err != nil {
		return encryptionKey{}, fmt.Errorf("make encryption key: %w", err)
	}
	return encryptionKey{Name: name, Secret: base64.StdEncoding.EncodeToString(raw)}, nil
}

// nextName is one above the highest number used: a name once stored never means another key.
func nextName(keys []encryptionKey) string {
	highest := 0
	for _, k := range keys {
		highest = max(highest, k.number())
	}
	return "key" + strconv.Itoa(highest+1)
}
