package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// FrontProxyClient is the only common name that may pass on other users' identities.
const FrontProxyClient = "front-proxy-client"

// Authority is the opened key directory of a node. It is safe for concurrent use by one process;
// two processes must not share a directory.
type Authority struct {
	dir  string
	now  func() time.Time
	keys atomic.Pointer[keyring]
	mu   sync.Mutex // held while files are rewritten
	seed []byte     // the gossip key of a cluster that begins
}

// Open loads the keys in dir and makes what is missing: both CAs, the ServiceAccount key, the
// encryption keys, the keys that the nodes of a cluster share. It finishes an Update that was
// interrupted. An unreadable or damaged file is an error that names it.
func Open(dir string) (*Authority, error) {
	return Begin(dir, randomKey())
}

// Begin is Open for the first node of a cluster: when the directory has never been a cluster's, its
// gossip begins with the given key of 32 bytes instead of a random one.
func Begin(dir string, gossipKey []byte) (*Authority, error) {
	if len(gossipKey) != keyLen {
		return nil, fmt.Errorf("the gossip key has %d bytes, it must have %d", len(gossipKey), keyLen)
	}
	return open(&Authority{dir: dir, now: time.Now, seed: bytes.Clone(gossipKey)})
}

func open(a *Authority) (*Authority, error) {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key directory: %w", err)
	}
	ring, err := a.load()
	if err != nil {
		return nil, err
	}
	a.keys.Store(ring)
	return a, nil
}

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *Authority) ring() *keyring { return a.keys.Load() }

// CAPEM returns the certificates of every cluster CA that is believed, the issuer first: one, and
// two while the CA is rotated.
func (a *Authority) CAPEM() []byte { return bytes.Clone(a.ring().pem) }

// CAHash identifies the CA that issues now; join tokens pin it.
func (a *Authority) CAHash() [sha256.Size]byte { return sha256.Sum256(a.ring().issuer.cert.Raw) }

// Cluster is the cluster's name: random, and the same on every node for good.
func (a *Authority) Cluster() string { return a.ring().Cluster }

// GossipKeys returns the keys of gossip, the one that encrypts first.
func (a *Authority) GossipKeys() [][]byte {
	var keys [][]byte
	for _, k := range a.ring().Gossip {
		keys = append(keys, bytes.Clone(k.Key))
	}
	return keys
}

// IssuerFile is the path of the certificate of the CA that issues now, which CAKeyFile belongs
// to. It always holds exactly one certificate: signers want that.
func (a *Authority) IssuerFile() string { return a.path(issuerName) }

// CAFile is the path of the certificates of every cluster CA that is believed, as in CAPEM.
func (a *Authority) CAFile() string { return a.path("ca.crt") }

// CAKeyFile is the path of the key of the CA that issues now.
func (a *Authority) CAKeyFile() string { return a.path("ca.key") }

// FrontProxyCAFile is the path of the certificate of the CA that vouches for front proxies.
func (a *Authority) FrontProxyCAFile() string { return a.path("front-proxy-ca.crt") }

// ServiceAccountKeyFile is the path of the key that signs and verifies ServiceAccount tokens.
func (a *Authority) ServiceAccountKeyFile() string { return a.path("sa.key") }

// EncryptionFile is the path of the EncryptionConfiguration for data at rest.
func (a *Authority) EncryptionFile() string { return a.path("encryption.yaml") }

// ServerCert issues a serving certificate of the cluster CA (90 days) for hosts, which are DNS
// names or IP addresses. It returns certificate and key in PEM and stores nothing.
func (a *Authority) ServerCert(hosts ...string) (cert, key []byte, err error) {
	return a.pair(server(hosts), servingLife)
}

// ClientCert issues a client certificate of the cluster CA (one year) that the API server reads as
// user in groups. It returns certificate and key in PEM and stores nothing.
func (a *Authority) ClientCert(user string, groups ...string) (cert, key []byte, err error) {
	return a.pair(client(user, groups), clientLife)
}

func (a *Authority) pair(t *x509.Certificate, life time.Duration) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	if cert, err = a.ring().issuer.issue(t, &k.PublicKey, a.now(), life); err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(k)
	return cert, key, err
}

// Serving returns the files of the API server's certificate for hosts. They are made or renewed
// when they are missing, name other hosts, come from another CA, have less than a third of their
// life left or are not valid yet. Call it again now and then: the API server notices changed files by itself.
func (a *Authority) Serving(hosts ...string) (certFile, keyFile string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	certFile, keyFile = a.path(servingCert), a.path("apiserver.key")
	_, _, err = a.ensure(a.ring().issuer, certFile, keyFile, server(hosts), servingLife)
	return certFile, keyFile, err
}

// FrontProxy returns the files of the certificate that the API server shows to aggregated APIs and
// webhooks, renewed like Serving does.
func (a *Authority) FrontProxy() (certFile, keyFile string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	certFile, keyFile = a.path("front-proxy-client.crt"), a.path("front-proxy-client.key")
	_, _, err = a.ensure(a.ring().proxy, certFile, keyFile, client(FrontProxyClient, nil), clientLife)
	return certFile, keyFile, err
}

// ensure makes the certificate in certFile be one of want issued by c with enough life left. The
// key is kept unless it is damaged: replacing two files is not atomic, and a reader between the two
// would see a pair that does not match. The certificate is returned also when it could not be written.
func (a *Authority) ensure(c *ca, certFile, keyFile string, want *x509.Certificate, life time.Duration) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := loadKey(keyFile)
	if errors.Is(err, errDamaged) {
		key, err = makeKey(keyFile)
	}
	if err != nil {
		return nil, nil, err
	}
	if data, err := os.ReadFile(certFile); err == nil && a.fresh(c, data, key, want) { // #nosec G304 -- our own directory
		return data, key, nil
	}
	data, err := c.issue(want, &key.PublicKey, a.now(), life)
	if err != nil {
		return nil, nil, err
	}
	return data, key, WriteFile(certFile, data)
}

func (a *Authority) fresh(c *ca, data []byte, key *ecdsa.PrivateKey, want *x509.Certificate) bool {
	cert, err := parseCert("", data)
	if err != nil {
		return false
	}
	left, life := cert.NotAfter.Sub(a.now()), cert.NotAfter.Sub(cert.NotBefore)
	return left <= life && left*3 >= life && // with more left than its life, it is of a clock that was ahead
		key.PublicKey.Equal(cert.PublicKey) &&
		cert.CheckSignatureFrom(c.cert) == nil &&
		sameNames(cert, want)
}

func sameNames(a, b *x509.Certificate) bool {
	names := func(c *x509.Certificate) map[string]bool {
		m := map[string]bool{"subject:" + c.Subject.String(): true}
		for _, n := range c.DNSNames {
			m["dns:"+n] = true
		}
		for _, ip := range c.IPAddresses {
			m["ip:"+ip.String()] = true
		}
		return m
	}
	x, y := names(a), names(b)
	if len(x) != len(y) {
		return false
	}
	for n := range x {
		if !y[n] {
			return false
		}
	}
	return true
}
