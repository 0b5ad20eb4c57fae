package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
)

// identity shows a client certificate to an API server in this process: the handlers see it as they
// would after a TLS handshake, and the API server checks it against its CA with every request.
// There is no proof that the caller holds the key, and none is needed within one process.
type identity struct {
	shown *tls.ConnectionState
	next  http.RoundTripper
}

func newIdentity(certPEM []byte) (identity, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return identity{}, errors.New("client certificate is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return identity{}, err
	}
	return identity{shown: &tls.ConnectionState{
		HandshakeComplete: true, Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{cert},
	}}, nil
}

func (i identity) wrap(next http.RoundTripper) http.RoundTripper {
	return identity{shown: i.shown, next: next}
}

// RoundTrip implements http.RoundTripper.
func (i identity) RoundTrip(req *http.Request) (*http.Response, error) {
	r := *req
	r.TLS = i.shown
	return i.next.RoundTrip(&r)
}
