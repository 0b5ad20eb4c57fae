package join

import (
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// Protocol is what this package speaks, as the name told in the TLS handshake.
const Protocol = "psw-join/1"

const (
	maxRequest = 32 << 10
	maxAnswer  = 256 << 10
	maxShort   = 4 << 10
	maxPeers   = 1000

	// exchangeTime bounds one exchange, on both sides.
	exchangeTime = 30 * time.Second
)

// request is all that a newcomer says of itself.
type request struct {
	Token   string `json:"token"`
	Name    string `json:"name"`
	CSR     []byte `json:"csr"`     // PEM
	Address string `json:"address"` // where peers reach it, host:port
	PodCIDR string `json:"podCIDR,omitempty"`
	Release string `json:"release"`
	Format  int    `json:"format"`
	Clock   int64  `json:"clock"` // Unix milliseconds

	host  string    // of Address
	key   string    // names the key of CSR
	token pki.Token // set when Token was judged
	wish  netip.Prefix
}

// answer admits the newcomer, or refuses it.
type answer struct {
	Refusal      *Refusal     `json:"refusal,omitempty"`
	Certificate  []byte       `json:"certificate,omitempty"` // PEM
	Bundle       []byte       `json:"bundle,omitempty"`
	Cluster      string       `json:"cluster,omitempty"`
	Lineage      string       `json:"lineage,omitempty"`
	PodCIDR      netip.Prefix `json:"podCIDR,omitzero"`
	PodRange     netip.Prefix `json:"podRange,omitzero"`
	ServiceRange netip.Prefix `json:"serviceRange,omitzero"`
	Peers        []string     `json:"peers,omitempty"`
	Release      string       `json:"release,omitempty"`
}

// confirmation says that the newcomer has checked and kept what it was given.
type confirmation struct {
	Installed bool `json:"installed"`
}

// receipt ends the exchange.
type receipt struct {
	Refusal *Refusal `json:"refusal,omitempty"`
	Done    bool     `json:"done"`
}

// send writes one message.
func send(w io.Writer, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	if _, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)); err != nil { //nolint:gosec // far below 4 GiB
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

var (
	// errTooLong says that a message is longer than any real one.
	errTooLong = errors.New("the message is too long")
	// errGone says that the other side does not listen, or say, any more.
	errGone = errors.New("connection lost")
)

// receive reads the bytes of one message of at most limit bytes.
func receive(r io.Reader, limit uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return nil, errTooLong
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	return data, nil
}

// decodeRequest reads a request and checks all that can be checked without the cluster.
func decodeRequest(data []byte) (*request, error) {
	r := &request{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	if err := pki.CheckNodeName(r.Name); err != nil {
		return nil, err
	}
	spki, err := pki.ParseNodeRequest(r.CSR, r.Name)
	if err != nil {
		return nil, err
	}
	r.key = KeyID(spki)
	if r.host, err = checkAddress(r.Address); err != nil {
		return nil, err
	}
	if r.PodCIDR != "" {
		if r.wish, err = netip.ParsePrefix(r.PodCIDR); err != nil || !r.wish.Addr().Is4() || r.wish != r.wish.Masked() {
			return nil, fmt.Errorf("pod range %.50q is not an IPv4 network", r.PodCIDR)
		}
	}
	if len(r.Release) > 100 {
		return nil, errors.New("the release's name is too long")
	}
	return r, nil
}

// decodeAnswer reads an answer and checks that it is a refusal, or complete and for the newcomer
// with that key, whose token pins ca.
func decodeAnswer(data []byte, name string, csr []byte, ca [32]byte) (*answer, error) {
	a := &answer{}
	if err := json.Unmarshal(data, a); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if a.Refusal != nil {
		a.Refusal.Text = oneLine(a.Refusal.Text)
		return a, nil //nolint:nilerr // a refusal is a good answer
	}
	block, _ := pem.Decode(a.Certificate)
	if block == nil {
		return nil, errors.New("read answer: no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	want, err := pki.ParseNodeRequest(csr, name)
	if err != nil {
		return nil, err
	}
	if got, ok := pki.NodeName(cert); !ok || got != name || string(cert.RawSubjectPublicKeyInfo) != string(want) {
		return nil, errors.New("read answer: the certificate is not for this node")
	}
	if !pki.BundleBelieves(a.Bundle, ca) {
		return nil, errors.New("read answer: the keys are damaged, or not of the cluster in the token")
	}
	if !a.PodCIDR.IsValid() || !a.PodRange.IsValid() || !a.ServiceRange.IsValid() || !a.PodCIDR.Addr().Is4() {
		return nil, errors.New("read answer: an address range is missing")
	}
	if len(a.Peers) == 0 || len(a.Peers) > maxPeers {
		return nil, fmt.Errorf("read answer: %d peers, want 1 to %d", len(a.Peers), maxPeers)
	}
	for _, p := range a.Peers {
		if _, err := checkAddress(p); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
	}
	return a, nil
}

// checkAddress accepts host:port that another machine can connect to and returns the host.
func checkAddress(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || len(addr) > 300 {
		return "", fmt.Errorf("address %.100q is not host:port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("address %.100q has no port", addr)
	}
	if ip, err := netip.ParseAddr(host); err == nil && (ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "") || host == "" {
		return "", fmt.Errorf("address %.100q cannot be reached by other machines", addr)
	}
	return host, nil
}

func confirms(data []byte) bool {
	var c confirmation
	return json.Unmarshal(data, &c) == nil && c.Installed
}
