package join

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// sample makes a real request and a real answer to it.
func sample(f *testing.F) (req, ans, csr []byte, ca [32]byte) {
	f.Helper()
	keys, err := pki.Open(filepath.Join(f.TempDir(), "pki"))
	if err != nil {
		f.Fatal(err)
	}
	key, err := pki.NewNodeKey()
	if err != nil {
		f.Fatal(err)
	}
	n := Newcomer{Token: pki.NewToken(keys.CAHash()).String(), Name: "n2", Address: "192.0.2.2:7946", Key: key, PodCIDR: netip.MustParsePrefix("10.244.7.0/24")}
	r, err := n.request()
	if err != nil {
		f.Fatal(err)
	}
	cert, err := keys.SignNode(r.CSR, "n2", nil)
	if err != nil {
		f.Fatal(err)
	}
	p := netip.MustParsePrefix("10.244.7.0/24")
	a := answer{Certificate: cert, Bundle: keys.Bundle(), Cluster: "c", PodCIDR: p, PodRange: p, ServiceRange: p, Peers: []string{"192.0.2.1:7946"}}
	if req, err = json.Marshal(r); err != nil {
		f.Fatal(err)
	}
	if ans, err = json.Marshal(a); err != nil {
		f.Fatal(err)
	}
	if _, err := decodeAnswer(ans, "n2", r.CSR, keys.CAHash()); err != nil {
		f.Fatal(err)
	}
	return req, ans, r.CSR, keys.CAHash()
}

func FuzzRequest(f *testing.F) {
	req, _, _, _ := sample(f)
	f.Add(req)
	f.Add(req[:len(req)/2])
	f.Add([]byte(`{"name":"n2","address":"[::]:1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRequest(data)
		if err == nil && (r.Name == "" || r.host == "" || r.key == "") {
			t.Errorf("incomplete: %+v", r)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	_, ans, csr, ca := sample(f)
	f.Add(ans)
	f.Add(ans[:len(ans)/2])
	f.Add([]byte(`{"refusal":{"reason":"Expired","text":"a\nb"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := decodeAnswer(data, "n2", csr, ca)
		switch {
		case err != nil:
		case a.Refusal != nil:
			if strings.ContainsAny(a.Refusal.Text, "\n\r\x1b") {
				t.Errorf("not one line: %q", a.Refusal.Text)
			}
		case len(a.Peers) == 0 || !a.PodCIDR.IsValid() || len(a.Bundle) == 0:
			t.Errorf("incomplete: %+v", a)
		}
	})
}

func FuzzShort(f *testing.F) {
	f.Add([]byte(`{"installed":true}`))
	f.Add([]byte(`{"done":true}`))
	f.Add([]byte(`{"refusal":{"text":"a\u0000b"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if confirms(data) && !bytes.Contains(bytes.ToLower(data), []byte("installed")) && !bytes.Contains(data, []byte(`\u`)) {
			t.Error("confirmed by something else")
		}
		if err := decodeReceipt(data); err != nil && reason(err) != "" && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("not one line: %q", err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 'a', 'b'})
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := receive(bytes.NewReader(data), maxShort)
		if err == nil && (len(got) > maxShort || !bytes.Equal(got, data[4:4+len(got)])) {
			t.Errorf("got %d bytes", len(got))
		}
	})
}
