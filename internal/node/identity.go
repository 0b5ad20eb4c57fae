package node

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
)

// identity shows this node's certificate to an API server in this process: the handlers see it as
// they would after a TLS handshake, and the API server checks it against its CA with every request.
// There is no proof that the caller holds the key, and none is needed within one process.
type identity struct {
	cert func() *tls.Certificate // the present one: it is renewed while the node runs
	next http.RoundTripper
}

func (i identity) wrap(next http.RoundTripper) http.RoundTripper {
	return identity{cert: i.cert, next: next}
}

// RoundTrip implements http.RoundTripper.
func (i identity) RoundTrip(req *http.Request) (*http.Response, error) {
	r := *req
	r.TLS = &tls.ConnectionState{
		HandshakeComplete: true, Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{i.cert().Leaf},
	}
	return i.next.RoundTrip(&r)
}
