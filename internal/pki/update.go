package pki

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	servingCert = "apiserver.crt"
	nextKeyName = "ca-next.key"
	sharedName  = "cluster.json"
	issuerName  = "ca-issuer.crt"
	nodeKeyName = "node.key"
	// journalName holds the bundle that is being written to the other files.
	journalName = "update.json"
)

// shared is the part of a bundle that only nodes use; it is kept in cluster.json. The rest is in
// files of its own, which the Kubernetes components read.
type shared struct {
	Format     int         `json:"format"`
	Cluster    string      `json:"cluster"`
	Generation uint64      `json:"generation"`
	Gossip     []gossipKey `json:"gossip"`
	ClusterKey []byte      `json:"clusterKey"`
}

// Generation counts the changes of the cluster's keys.
func (a *Authority) Generation() uint64 { return a.ring().Generation }

// Changed returns a channel that is closed at the next change of keys. Take it before looking.
func (a *Authority) Changed() <-chan struct{} { return a.ring().change }

// Bundle returns every key that the nodes of this cluster share, in clear: for newcomers, and
// sealed for replication.
func (a *Authority) Bundle() []byte { return bytes.Clone(a.ring().data) }

// Update makes the keys of a bundle the ones in use, in memory and, for those that read files, on
// disk; after a crash Open finishes it. The bundle that is in use already is no change; ErrOlder
// says that those in use are newer. Of two changes made at the same time every node takes the same.
func (a *Authority) Update(data []byte) error {
	r, err := decodeBundle(data)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	cur := a.ring()
	switch {
	case r.Cluster != cur.Cluster:
		return fmt.Errorf("update keys: they belong to cluster %s, this node to %s", r.Cluster, cur.Cluster)
	case bytes.Equal(r.data, cur.data):
		return nil
	case !r.newerThan(cur):
		return fmt.Errorf("update keys to generation %d: %w (generation %d)", r.Generation, ErrOlder, cur.Generation)
	}
	return a.apply(r)
}

// change puts b in the place of the keys in use. The caller holds a.mu.
func (a *Authority) change(b bundle) error {
	r, err := newKeyring(b)
	if err != nil {
		return err
	}
	return a.apply(r)
}

func (a *Authority) apply(r *keyring) error {
	if err := WriteFile(a.path(journalName), encodeJournal(r.data)); err != nil {
		return err
	}
	if err := a.finish(r); err != nil {
		return err
	}
	old := a.keys.Swap(r)
	close(old.change)
	return a.reissue()
}

// finish writes the keyring in the journal to its files and ends the journal.
func (a *Authority) finish(r *keyring) error {
	if err := writeKeys(a.dir, r); err != nil {
		return err
	}
	if err := os.Remove(a.path(journalName)); err != nil {
		return fmt.Errorf("update keys: %w", err)
	}
	return syncDir(a.dir)
}

// reissue gives the API server a certificate of the CA that issues now, with the names it has. It
// does nothing when there is none, or when it is fine.
func (a *Authority) reissue() error {
	data, err := os.ReadFile(a.path(servingCert))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	cert, err := parseCert(a.path(servingCert), data)
	if err != nil {
		return nil //nolint:nilerr // Serving, which knows the names, replaces a damaged one
	}
	want := server(cert.DNSNames)
	want.IPAddresses = cert.IPAddresses
	_, _, err = a.ensure(a.ring().issuer, a.path(servingCert), a.path("apiserver.key"), want, servingLife)
	return err
}

// keyFile is one file of a key directory; one without data must not be there.
type keyFile struct {
	name string
	data []byte
}

// keyFiles returns the files that hold r, in the order in which they are written: keys first, the
// sums of all last.
func keyFiles(r *keyring) ([]keyFile, error) {
	encryption, err := encodeEncryption(r.Encryption)
	if err != nil {
		return nil, err
	}
	own, err := json.Marshal(shared{r.Format, r.Cluster, r.Generation, r.Gossip, r.ClusterKey})
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", sharedName, err)
	}
	files := []keyFile{
		{nextKeyName, []byte(r.NextCAKey)},
		{"ca.key", []byte(r.CAKey)},
		{issuerName, r.issuer.pem},
		{"ca.crt", r.pem},
		{"front-proxy-ca.key", []byte(r.FrontProxyKey)},
		{"front-proxy-ca.crt", r.proxy.pem},
		{"sa.key", []byte(r.TokenKey)},
		{"encryption.yaml", encryption},
		{sharedName, own},
	}
	sums := map[string][]byte{}
	for _, f := range files {
		if len(f.data) > 0 {
			sums[f.name] = f.data
		}
	}
	return append(files, keyFile{sumsName, encodeSums(sums)}), nil
}

// writeKeys brings the files of dir up to r. Any prefix of it leaves files that a later call with
// r completes.
func writeKeys(dir string, r *keyring) error {
	files, err := keyFiles(r)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if len(f.data) > 0 {
			err = writeChanged(path, f.data)
		} else if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// load reads the directory and makes what is missing.
func (a *Authority) load() (*keyring, error) {
	data, err := os.ReadFile(a.path(journalName))
	if err == nil {
		r, err := decodeJournal(data)
		if err != nil {
			return nil, fmt.Errorf("finish the update in %s: %w; %s", a.path(journalName), err, wayBack)
		}
		return r, a.finish(r)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	summed, err := a.checkSums()
	if err != nil {
		return nil, err
	}
	b, err := a.loadBundle()
	if err != nil {
		return nil, err
	}
	r, err := newKeyring(b)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", a.dir, err)
	}
	if !summed { // made just now, or by an earlier release
		if err := a.makeSums(); err != nil {
			return nil, err
		}
	}
	return r, writeChanged(a.IssuerFile(), r.issuer.pem)
}

// loadBundle gathers the bundle from its files and makes those that are missing.
func (a *Authority) loadBundle() (bundle, error) {
	b := bundle{Format: bundleFormat}
	issuer, trusted, err := openCA(a.CAFile(), a.CAKeyFile(), clusterCA, a.now())
	if err != nil {
		return b, err
	}
	for _, cert := range trusted {
		b.CAs = append(b.CAs, string(encodeCert(cert.Raw)))
	}
	proxy, _, err := openCA(a.FrontProxyCAFile(), a.path("front-proxy-ca.key"), "podman-swarm-front-proxy", a.now())
	if err != nil {
		return b, err
	}
	b.FrontProxyCA = string(proxy.pem)
	token, err := loadKey(a.ServiceAccountKeyFile())
	if err != nil {
		return b, err
	}
	if b.Encryption, err = loadEncryption(a.EncryptionFile()); err != nil {
		return b, err
	}
	own, err := a.loadShared()
	if err != nil {
		return b, err
	}
	b.Cluster, b.Generation, b.Gossip, b.ClusterKey = own.Cluster, own.Generation, own.Gossip, own.ClusterKey
	next, err := a.read(nextKeyName)
	if err != nil {
		return b, err
	}
	b.NextCAKey = string(next)
	var err1, err2, err3 error
	b.CAKey, err1 = keyPEM(issuer.key)
	b.FrontProxyKey, err2 = keyPEM(proxy.key)
	b.TokenKey, err3 = keyPEM(token)
	return b, errors.Join(err1, err2, err3)
}

// loadShared reads cluster.json, or makes it for a directory that has never been a cluster's.
func (a *Authority) loadShared() (shared, error) {
	path := a.path(sharedName)
	data, err := os.ReadFile(path) // #nosec G304 -- our own directory
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(a.path(nodeKeyName)); err == nil {
			return shared{}, fmt.Errorf("%s is gone, but %s shows that this is a cluster's node; restore the file from a backup", path, nodeKeyName)
		}
		return a.makeShared()
	}
	if err != nil {
		return shared{}, fmt.Errorf("read cluster keys: %w", err)
	}
	var s shared
	if err := json.Unmarshal(data, &s); err != nil {
		return shared{}, fmt.Errorf("read cluster keys %s: %w; restore the file from a backup", path, err)
	}
	if s.Format > bundleFormat {
		return shared{}, fmt.Errorf("read cluster keys %s: format %d is newer than this release reads (%d); install the newer release again", path, s.Format, bundleFormat)
	}
	if s.Format < 1 || !validCluster(s.Cluster) || s.Generation == 0 || len(s.Gossip) == 0 || len(s.ClusterKey) != keyLen {
		return shared{}, fmt.Errorf("read cluster keys %s: incomplete; restore the file from a backup", path)
	}
	return s, nil
}

func (a *Authority) makeShared() (shared, error) {
	s := shared{Format: bundleFormat, Cluster: newCluster(), Generation: 1, Gossip: []gossipKey{{1, a.seed}}, ClusterKey: randomKey()}
	data, err := json.Marshal(s)
	if err != nil {
		return s, fmt.Errorf("write %s: %w", sharedName, err)
	}
	return s, WriteFile(a.path(sharedName), data)
}

func newCluster() string {
	b := make([]byte, 10)
	_, _ = rand.Read(b) // never fails
	return lower32().EncodeToString(b)
}

func randomKey() []byte {
	b := make([]byte, keyLen)
	_, _ = rand.Read(b)
	return b
}
