package apiserver

import (
	"crypto/x509"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
)

// refusing looks at the certificate that a client shows before anything else does: the authority
// vouches for a node's name as long as its certificate lives, also when the node is removed before.
type refusing struct {
	refuse func(*x509.Certificate) error
	next   authenticator.Request
}

// AuthenticateRequest implements authenticator.Request.
func (r refusing) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
		if err := r.refuse(req.TLS.PeerCertificates[0]); err != nil {
			return nil, false, err
		}
	}
	return r.next.AuthenticateRequest(req)
}
