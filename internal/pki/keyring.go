package pki

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// bundleFormat is the newest format of a bundle, the one that is written.
	bundleFormat = 1
	// maxBundle bounds what is read from the network; a bundle has about 4 KB.
	maxBundle = 128 << 10
	// maxKeys bounds the keys and certificates of one kind: a rotation has two at most, and an
	// interrupted one a few more.
	maxKeys = 16
)

// ErrOlder says that the keys at hand are newer than the ones offered: offer those instead.
var ErrOlder = errors.New("the keys in use are newer")

// bundle is every key that the nodes of a cluster share, as it travels and as it is kept while an
// update is written. Lists have the one in use first.
type bundle struct {
	Format     int    `json:"format"`
	Cluster    string `json:"cluster"`    // names the cluster, for good
	Generation uint64 `json:"generation"` // counts the changes
	// CAs are the certificates that are believed, the issuer first; CAKey is the issuer's.
	CAs   []string `json:"cas"`
	CAKey string   `json:"caKey"`
	// NextCAKey is the key of a CA that is believed already and will be the issuer next.
	NextCAKey     string          `json:"nextCAKey,omitempty"`
	FrontProxyCA  string          `json:"frontProxyCA"`
	FrontProxyKey string          `json:"frontProxyKey"`
	TokenKey      string          `json:"serviceAccountKey"`
	Encryption    []encryptionKey `json:"encryption"`
	Gossip        []gossipKey     `json:"gossip"`
	ClusterKey    []byte          `json:"clusterKey"`
}

// gossipKey has a number, so that a rotation knows which of two is the newer.
type gossipKey struct {
	Number int    `json:"number"`
	Key    []byte `json:"key"`
}

// keyring is a bundle whose parts were read and fit together. It never changes.
type keyring struct {
	bundle
	data    []byte // the bundle's bytes
	issuer  *ca
	next    *ca // nil when no rotation has begun
	trusted []*x509.Certificate
	pem     []byte // of trusted
	pool    *x509.CertPool
	proxy   *ca
	seal    cipher.AEAD   // of the cluster key
	change  chan struct{} // closed when a newer keyring is in use
}

// decodeBundle reads a bundle from anywhere. What it returns is complete and consistent.
func decodeBundle(data []byte) (*keyring, error) {
	if len(data) > maxBundle {
		return nil, fmt.Errorf("read keys: %d bytes, at most %d are allowed", len(data), maxBundle)
	}
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if version.Format < 1 || version.Format > bundleFormat {
		return nil, fmt.Errorf("read keys: format %d, this release reads up to %d; update this node", version.Format, bundleFormat)
	}
	var b bundle
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read keys: more than one value")
	}
	return newKeyring(b)
}

func newKeyring(b bundle) (*keyring, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	r := &keyring{bundle: b, pool: x509.NewCertPool(), change: make(chan struct{})}
	for i, text := range b.CAs {
		cert, err := parseCert(fmt.Sprintf("ca %d", i+1), []byte(text))
		if err != nil {
			return nil, err
		}
		if !cert.IsCA {
			return nil, fmt.Errorf("read certificate ca %d: not a certificate authority", i+1)
		}
		r.trusted = append(r.trusted, cert)
		r.pem = append(r.pem, encodeCert(cert.Raw)...)
		r.pool.AddCert(cert)
	}
	var err error
	if r.issuer, err = authorityOf(r.trusted[:1], "ca.key", b.CAKey); err != nil {
		return nil, err
	}
	if b.NextCAKey != "" {
		if r.next, err = authorityOf(r.trusted[1:], nextKeyName, b.NextCAKey); err != nil {
			return nil, err
		}
	}
	cert, err := parseCert("front-proxy-ca.crt", []byte(b.FrontProxyCA))
	if err != nil {
		return nil, err
	}
	if r.proxy, err = authorityOf([]*x509.Certificate{cert}, "front-proxy-ca.key", b.FrontProxyKey); err != nil {
		return nil, err
	}
	if _, err := parseKey("sa.key", []byte(b.TokenKey)); err != nil {
		return nil, err
	}
	if r.seal, err = newSeal(b.ClusterKey); err != nil {
		return nil, err
	}
	if r.data, err = json.Marshal(b); err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	return r, nil
}

// check finds what is missing or has a wrong size.
func (b *bundle) check() error {
	switch {
	case b.Format != bundleFormat:
		return fmt.Errorf("format %d, want %d", b.Format, bundleFormat)
	case !validCluster(b.Cluster):
		return errors.New("no name of a cluster")
	case b.Generation == 0:
		return errors.New("no generation")
	case len(b.CAs) == 0 || len(b.CAs) > maxKeys:
		return fmt.Errorf("%d authorities, want 1 to %d", len(b.CAs), maxKeys)
	case len(b.Encryption) == 0 || len(b.Encryption) > maxKeys:
		return fmt.Errorf("%d encryption keys, want 1 to %d", len(b.Encryption), maxKeys)
	case len(b.Gossip) == 0 || len(b.Gossip) > maxKeys:
		return fmt.Errorf("%d gossip keys, want 1 to %d", len(b.Gossip), maxKeys)
	case len(b.ClusterKey) != keyLen:
		return errors.New("the cluster key is damaged")
	}
	for _, k := range b.Encryption {
		if raw, err := base64.StdEncoding.DecodeString(k.Secret); err != nil || len(raw) != keyLen || !validKeyName(k.Name) {
			return fmt.Errorf("encryption key %q is damaged", k.Name)
		}
	}
	for _, k := range b.Gossip {
		if len(k.Key) != keyLen {
			return fmt.Errorf("gossip key %d is damaged", k.Number)
		}
	}
	return nil
}

// authorityOf finds the certificate that key belongs to.
func authorityOf(certs []*x509.Certificate, name, key string) (*ca, error) {
	k, err := parseKey(name, []byte(key))
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		if k.PublicKey.Equal(cert.PublicKey) {
			return &ca{cert: cert, pem: encodeCert(cert.Raw), key: k}, nil
		}
	}
	return nil, fmt.Errorf("key %s does not belong to its certificate; restore both from the same backup", name)
}

// successor returns a copy of the bundle of the next generation.
func (r *keyring) successor() bundle {
	b := r.bundle
	b.Generation++
	b.CAs = append([]string(nil), b.CAs...)
	b.Encryption = append([]encryptionKey(nil), b.Encryption...)
	b.Gossip = append([]gossipKey(nil), b.Gossip...)
	return b
}

// newerThan orders the keyrings of one cluster totally, so that all nodes end with the same: the
// higher generation, and of two changes made at the same time the one with the higher hash.
func (r *keyring) newerThan(other *keyring) bool {
	if r.Generation != other.Generation {
		return r.Generation > other.Generation
	}
	x, y := sha256.Sum256(r.data), sha256.Sum256(other.data)
	return bytes.Compare(x[:], y[:]) > 0
}

// keyPEM is encodeKey as text.
func keyPEM(key *ecdsa.PrivateKey) (string, error) {
	data, err := encodeKey(key)
	return string(data), err
}

func validCluster(s string) bool { return plain(s, 64) }

// validKeyName keeps what is written into YAML and into the header of every Secret plain.
func validKeyName(s string) bool { return plain(s, 63) }

func plain(s string, longest int) bool {
	return s != "" && len(s) <= longest && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
