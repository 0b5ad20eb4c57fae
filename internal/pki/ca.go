package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"time"
)

const (
	clusterCA = "podman-swarm" // the cluster CA's common name
	// serverName is a server's: with the CA's, OpenSSL would take its certificate for self-signed.
	serverName  = "podman-swarm-server"
	caLife      = 10 * 365 * 24 * time.Hour
	servingLife = 90 * 24 * time.Hour
	clientLife  = 365 * 24 * time.Hour
	// skew lets a certificate be used by a peer whose clock is a little behind.
	skew = 5 * time.Minute
)

// ca is one certificate authority: its certificate and its key, which match each other.
type ca struct {
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
}

// openCA loads the authority of the two files, or makes it when neither exists. It returns every
// certificate of the file too; the first is the authority's.
func openCA(certFile, keyFile, name string, now time.Time) (*ca, []*x509.Certificate, error) {
	data, err := os.ReadFile(certFile) // #nosec G304 -- our own directory
	if errors.Is(err, fs.ErrNotExist) {
		return makeCA(certFile, keyFile, name, now)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate: %w", err)
	}
	certs, err := parseCerts(certFile, data)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := os.ReadFile(keyFile) // #nosec G304 -- our own directory
	if err != nil {
		return nil, nil, fmt.Errorf("read the key of %s: %w; restore the file from a backup", certFile, err)
	}
	key, err := parseKey(keyFile, keyPEM)
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, nil, fmt.Errorf("key %s does not belong to %s; restore both from the same backup", keyFile, certFile)
	}
	return &ca{cert: certs[0], pem: encodeCert(certs[0].Raw), key: key}, certs, nil
}

func makeCA(certFile, keyFile, name string, now time.Time) (*ca, []*x509.Certificate, error) {
	key, err := loadKey(keyFile)
	if err != nil {
		return nil, nil, err
	}
	c, err := newCA(key, name, now)
	if err != nil {
		return nil, nil, fmt.Errorf("make %s: %w", certFile, err)
	}
	return c, []*x509.Certificate{c.cert}, WriteFile(certFile, c.pem)
}

// newCA makes a self-signed authority.
func newCA(key *ecdsa.PrivateKey, name string, now time.Time) (*ca, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &ca{cert: cert, pem: encodeCert(der), key: key}, nil
}

// server returns a template for a serving certificate; a host that is an IP address becomes an
// IP name, anything else a DNS name.
func server(hosts []string) *x509.Certificate {
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: serverName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

// client returns a template for a client certificate: Kubernetes reads the common name as the
// user and the organizations as the groups.
func client(user string, groups []string) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// issue signs template for key, valid from now for life but never longer than the CA.
func (c *ca) issue(template *x509.Certificate, key *ecdsa.PublicKey, now time.Time, life time.Duration) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := *template
	t.SerialNumber = serial
	t.NotBefore = now.Add(-skew)
	t.NotAfter = now.Add(life)
	if t.NotAfter.After(c.cert.NotAfter) {
		t.NotAfter = c.cert.NotAfter
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, &t, c.cert, key, c.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", t.Subject.CommonName, err)
	}
	return encodeCert(der), nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}
