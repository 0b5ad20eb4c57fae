package node

import (
	"net/http"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

type recorded struct{ got *http.Request }

func (r *recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	r.got = req
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: req}, nil
}

func TestIdentityShowsItsCertificateAndNothingElse(t *testing.T) {
	keys, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := keys.Node("n1", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	id := identity{cert: cert.Certificate}
	next := &recorded{}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := id.wrap(next).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if req.TLS != nil {
		t.Error("the caller's request was changed")
	}
	shown := next.got.TLS.PeerCertificates
	if len(shown) != 1 || shown[0].Subject.CommonName != "system:node:n1" || shown[0].Subject.Organization[0] != "system:nodes" {
		t.Errorf("the API sees %+v", shown)
	}
	if next.got.Header.Get("Authorization") != "" {
		t.Error("a token goes along")
	}
}
