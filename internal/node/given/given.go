package given

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
)

// keyLen is the length of a gossip key.
const keyLen = 32

// GossipKey reads the file of --encryption-key; nil when there is none.
func GossipKey(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file) //nolint:gosec // named by the operator
	if err != nil {
		return nil, fmt.Errorf("--encryption-key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(data)))
	if err != nil || len(key) != keyLen {
		return nil, fmt.Errorf("--encryption-key: %s does not hold %d bytes in base64: make one with: openssl rand -base64 %d", file, keyLen, keyLen)
	}
	return key, nil
}

// Pair checks the files of --tls-cert and --tls-key, which the API server reads by itself.
func Pair(certFile, keyFile string) error {
	if certFile == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	if len(pair.Leaf.DNSNames)+len(pair.Leaf.IPAddresses) == 0 {
		return fmt.Errorf("--tls-cert: %s is for no DNS name and no address (it has no subjectAltName): nobody would be shown it", certFile)
	}
	return nil
}

// CAs reads the certificates in the file of --tls-ca; nil when there is none.
func CAs(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	rest, err := os.ReadFile(file) //nolint:gosec // named by the operator
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	var all []byte
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("--tls-ca: %s holds a %s: only certificates belong there", file, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("--tls-ca: %s: %w", file, err)
		}
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})...)
	}
	if all == nil {
		return nil, fmt.Errorf("--tls-ca: %s holds no certificate in PEM", file)
	}
	return all, nil
}
