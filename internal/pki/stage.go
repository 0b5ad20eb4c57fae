package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Staged is a complete key directory that is not in its place yet.
type Staged struct{ tmp, dir string }

// InstallBundle makes dir a key directory with the keys of a bundle. Afterwards all of it is there
// or, after an error or a crash, nothing. The directory above dir must exist; dir must not, or be
// empty.
func InstallBundle(dir string, bundle []byte) error {
	r, err := decodeBundle(bundle)
	if err != nil {
		return err
	}
	s, err := stage(dir, r, nil)
	if err != nil {
		return err
	}
	return s.Commit()
}

// StageNode prepares the key directory dir of a node that has a certificate (for key, both in PEM)
// of the bundle's CA, beside dir. Commit puts it into place, Discard removes it; what a crash
// leaves beside dir, the next StageNode removes.
func StageNode(dir string, bundle, cert, key []byte) (*Staged, error) {
	r, err := decodeBundle(bundle)
	if err != nil {
		return nil, err
	}
	leaf, err := parseCert(nodeCertName, cert)
	if err != nil {
		return nil, err
	}
	k, err := parseKey(nodeKeyName, key)
	if err != nil {
		return nil, err
	}
	if _, ok := NodeName(leaf); !ok || !k.PublicKey.Equal(leaf.PublicKey) || leaf.CheckSignatureFrom(r.issuer.cert) != nil {
		return nil, errors.New("the certificate received is not this node's, or not by the cluster's CA")
	}
	return stage(dir, r, map[string][]byte{nodeKeyName: key, nodeCertName: cert})
}

// BundleBelieves tells whether the bundle is complete and its nodes believe the CA that hash
// identifies, as CAHash does.
func BundleBelieves(bundle []byte, hash [sha256.Size]byte) bool {
	r, err := decodeBundle(bundle)
	return err == nil && slices.ContainsFunc(r.trusted, func(c *x509.Certificate) bool { return sha256.Sum256(c.Raw) == hash })
}

func stage(dir string, r *keyring, more map[string][]byte) (s *Staged, err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("install keys: %s holds keys already: this machine is a node; leave its cluster first, or use another data directory", dir)
	}
	s = &Staged{dir: dir, tmp: filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".new")}
	if err := s.Discard(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.tmp, 0o700); err != nil {
		return nil, fmt.Errorf("install keys: %w", err)
	}
	err = writeKeys(s.tmp, r)
	for name, data := range more {
		if err == nil {
			err = WriteFile(filepath.Join(s.tmp, name), data)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("install keys: %w", err), s.Discard())
	}
	return s, nil
}

// Commit puts the directory into its place, durably.
func (s *Staged) Commit() error {
	if err := os.Rename(s.tmp, s.dir); err != nil {
		return errors.Join(fmt.Errorf("install keys: %w", err), s.Discard())
	}
	return syncDir(filepath.Dir(s.dir))
}

// Discard removes the directory as if it had never been.
func (s *Staged) Discard() error {
	if err := os.RemoveAll(s.tmp); err != nil {
		return fmt.Errorf("remove %s: %w", s.tmp, err)
	}
	return nil
}
