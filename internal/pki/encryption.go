package pki

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

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
	a.mu.Lock()
	defer a.mu.Unlock()
	c, err := a.readEncryption()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, k := range *c.keys() {
		names = append(names, k.Name)
	}
	return names, nil
}

// AddEncryptionKey makes a key and puts it first: new writes use it, the old keys still decrypt.
// It returns the new key's name. Stored data must then be rewritten before DropEncryptionKeys.
func (a *Authority) AddEncryptionKey() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, err := a.readEncryption()
	if err != nil {
		return "", err
	}
	keys := c.keys()
	k, err := newEncryptionKey(nextName(*keys))
	if err != nil {
		return "", err
	}
	*keys = append([]encryptionKey{k}, *keys...)
	return k.Name, a.writeEncryption(c)
}

// DropEncryptionKeys forgets every key but the first. Data under another key is lost by that.
func (a *Authority) DropEncryptionKeys() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, err := a.readEncryption()
	if err != nil {
		return err
	}
	keys := c.keys()
	if len(*keys) == 1 {
		return nil
	}
	*keys = (*keys)[:1]
	return a.writeEncryption(c)
}

func (a *Authority) ensureEncryption() error {
	_, err := a.readEncryption()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	k, err := newEncryptionKey("key1")
	if err != nil {
		return err
	}
	return a.writeEncryption(&encryptionConfig{
		APIVersion: "apiserver.config.k8s.io/v1",
		Kind:       "EncryptionConfiguration",
		Resources: []encryptionResource{{
			Resources: []string{"secrets"},
			Providers: []encryptionProvider{{Secretbox: secretbox{Keys: []encryptionKey{k}}}},
		}},
	})
}

func (a *Authority) readEncryption() (*encryptionConfig, error) {
	data, err := os.ReadFile(a.EncryptionFile())
	if err != nil {
		return nil, fmt.Errorf("read encryption keys: %w", err)
	}
	c, err := parseEncryption(data)
	if err != nil {
		return nil, fmt.Errorf("read encryption keys %s: %w; restore the file from a backup", a.EncryptionFile(), err)
	}
	return c, nil
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

func (a *Authority) writeEncryption(c *encryptionConfig) error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write encryption keys: %w", err)
	}
	var b bytes.Buffer
	b.WriteString("# Keys for Secrets at rest. The first encrypts, all decrypt. Without this file they are lost.\n")
	b.Write(data)
	return WriteFile(a.EncryptionFile(), b.Bytes())
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
		if n, err := strconv.Atoi(strings.TrimPrefix(k.Name, "key")); err == nil {
			highest = max(highest, n)
		}
	}
	return "key" + strconv.Itoa(highest+1)
}
