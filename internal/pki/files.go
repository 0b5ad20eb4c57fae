package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "EC PRIVATE KEY"
)

// errDamaged says that the content of a key file is wrong, and what to do unless another key is as good.
var errDamaged = errors.New("restore the file from a backup")

// WriteFile replaces path by data with mode 0600, atomically and durably: after a crash the file
// has either its old content or the new one.
func WriteFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	_, werr := f.Write(data) // CreateTemp makes the file 0600
	if err = errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- our own directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// loadKey reads the EC key at path, or makes and stores one when the file does not exist.
func loadKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path) // #nosec G304 -- our own directory
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return parseKey(path, data)
}

func parseKey(path string, data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("read key %s: not a PEM %q; %w", path, keyBlock, errDamaged)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w; %w", path, err, errDamaged)
	}
	// The file holds the public half too, which the parser does not compare.
	if whole, err := x509.MarshalECPrivateKey(key); err != nil || !bytes.Equal(whole, block.Bytes) {
		return nil, fmt.Errorf("read key %s: its two halves do not belong together; %w", path, errDamaged)
	}
	return key, nil
}

func makeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	return key, WriteFile(path, data)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der})
}

// parseCert returns the certificate that data consists of.
func parseCert(path string, data []byte) (*x509.Certificate, error) {
	certs, err := parseCerts(path, data)
	if err == nil && len(certs) != 1 {
		err = fmt.Errorf("read certificate %s: not one PEM %q; restore the file from a backup", path, certBlock)
	}
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// parseCerts returns the certificates, at least one, that data consists of.
func parseCerts(path string, data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for len(certs) == 0 || len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != certBlock || len(certs) == maxKeys {
			return nil, fmt.Errorf("read certificate %s: not 1 to %d PEM %q; restore the file from a backup", path, maxKeys, certBlock)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s: %w; restore the file from a backup", path, err)
		}
		certs, data = append(certs, cert), rest
	}
	return certs, nil
}

// writeChanged writes data to path unless that is there already.
func writeChanged(path string, data []byte) error {
	have, err := os.ReadFile(path) // #nosec G304 -- our own directory
	if err == nil && bytes.Equal(have, data) {
		return nil
	}
	return WriteFile(path, data)
}
