package join

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// Dialer connects to a node without a certificate of one's own. verify is shown the certificates of
// the node, the issuing CA among them, and decides before anything is said.
type Dialer func(ctx context.Context, addr string, verify func(chain []*x509.Certificate) error) (net.Conn, error)

// Newcomer is a machine that wants to be a node.
type Newcomer struct {
	Token string
	Nodes []string // addresses of nodes; the first that answers decides
	Dial  Dialer
	// Dir is the key directory to be made; the directory above it must exist.
	Dir     string
	Name    string
	Address string       // where other nodes reach this one, host:port
	PodCIDR netip.Prefix // the range wished for; invalid: any
	Release string
	Format  int
	// Key is the node's key in PEM (pki.NewNodeKey); empty: a new one. A second try with the same
	// name and key is known to be one.
	Key []byte

	now func() time.Time
}

// Admission is what a newcomer was told besides the keys.
type Admission struct {
	Cluster, Lineage                string
	PodCIDR, PodRange, ServiceRange netip.Prefix
	Peers                           []string
	Release                         string // of the node that answered
}

const (
	// rounds is how often every address is tried when an exchange breaks off.
	rounds     = 2
	roundPause = time.Second
)

// Join makes this machine a node: afterwards Dir has its keys, and the cluster its record. After an
// error there is neither; a Refusal says why. Only when the connection broke just before the
// cluster's last word may there be a record; joining again with the same Key takes that up.
func Join(ctx context.Context, n Newcomer) (*Admission, error) {
	token, err := pki.ParseToken(n.Token)
	if err != nil {
		return nil, refuse(Mistyped, tokenTyped)
	}
	if n.now == nil {
		n.now = time.Now
	}
	if len(n.Key) == 0 {
		if n.Key, err = pki.NewNodeKey(); err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
	}
	req, err := n.request()
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return n.anywhere(ctx, token, req)
}

// request makes what is sent, checked like a node checks it.
func (n *Newcomer) request() (*request, error) {
	if err := pki.CheckNodeName(n.Name); err != nil {
		return nil, err
	}
	csr, err := pki.NodeRequest(n.Name, n.Key)
	if err != nil {
		return nil, err
	}
	req := &request{Token: n.Token, Name: n.Name, CSR: csr, Address: n.Address, Release: n.Release, Format: n.Format}
	if n.PodCIDR.IsValid() {
		req.PodCIDR = n.PodCIDR.String()
	}
	data, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return decodeRequest(data)
}

// anywhere tries the addresses until one admits or refuses the newcomer.
func (n *Newcomer) anywhere(ctx context.Context, token pki.Token, req *request) (*Admission, error) {
	for round := 1; ; round++ {
		var failures []string
		again := false
		for _, addr := range n.Nodes {
			adm, err := n.at(ctx, addr, token, req)
			if err == nil {
				return adm, nil
			}
			var refusal *Refusal
			if errors.As(err, &refusal) && !refusal.elsewhere() || errors.As(err, new(hereError)) {
				return nil, err
			}
			again = again || errors.Is(err, errGone) || refusal != nil
			failures = append(failures, oneLine(fmt.Sprintf("%s: %v", addr, err)))
			if ctx.Err() != nil {
				return nil, fmt.Errorf("join: %w", context.Cause(ctx))
			}
		}
		if round == rounds || !again {
			return nil, fmt.Errorf("join: no node admitted this one (%s); check the addresses, that the network lets this machine through, and try again", strings.Join(failures, "; "))
		}
		pause := time.NewTimer(roundPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("join: %w", context.Cause(ctx))
		}
	}
}

// at speaks with one node.
func (n *Newcomer) at(ctx context.Context, addr string, token pki.Token, req *request) (*Admission, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	verified := errors.New("the node's certificate was not looked at")
	conn, err := n.Dial(ctx, addr, func(chain []*x509.Certificate) error {
		verified = verify(token, n.now(), chain)
		return verified
	})
	if verified != nil && (err == nil || errors.As(verified, new(*Refusal))) {
		if err == nil {
			conn.Close()
		}
		return nil, verified
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	req.Clock = n.now().UnixMilli()
	if err := send(conn, req); err != nil {
		return nil, err
	}
	data, err := receive(conn, maxAnswer)
	if err != nil {
		return nil, err
	}
	ans, err := decodeAnswer(data, req.Name, req.CSR, token.CA)
	if err != nil {
		return nil, err
	}
	if ans.Refusal != nil {
		return nil, ans.Refusal
	}
	if err := n.install(conn, ans); err != nil {
		return nil, err
	}
	return &Admission{
		Cluster: ans.Cluster, Lineage: ans.Lineage, PodCIDR: ans.PodCIDR, PodRange: ans.PodRange,
		ServiceRange: ans.ServiceRange, Peers: ans.Peers, Release: ans.Release,
	}, nil
}

// install keeps what was given beside its place, confirms, and puts it into place.
func (n *Newcomer) install(conn net.Conn, ans *answer) error {
	staged, err := pki.StageNode(n.Dir, ans.Bundle, ans.Certificate, n.Key)
	if err != nil {
		return hereError{err}
	}
	if err := finish(conn); err != nil {
		if derr := staged.Discard(); derr != nil {
			return hereError{fmt.Errorf("join: %w (after: %w)", derr, err)}
		}
		return err
	}
	if err := staged.Commit(); err != nil {
		return hereError{err}
	}
	return nil
}

// hereError is a failure of this machine, which no other node can help.
type hereError struct{ error }

func (e hereError) Unwrap() error { return e.error }

func finish(conn net.Conn) error {
	if err := send(conn, confirmation{Installed: true}); err != nil {
		return err
	}
	data, err := receive(conn, maxShort)
	if err != nil {
		return err
	}
	return decodeReceipt(data)
}

func decodeReceipt(data []byte) error {
	var r receipt
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read receipt: %w", err)
	}
	if r.Refusal != nil {
		r.Refusal.Text = oneLine(r.Refusal.Text)
		return r.Refusal
	}
	if !r.Done {
		return fmt.Errorf("%w: the node did not finish", errGone)
	}
	return nil
}

// verify accepts the certificates of a node of the cluster that the token names.
func verify(token pki.Token, now time.Time, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return refuse(OtherCluster, "that address shows no certificate: it is no node")
	}
	roots := x509.NewCertPool()
	found := false
	for _, c := range chain[1:] {
		if sha256.Sum256(c.Raw) == token.CA {
			roots.AddCert(c)
			found = true
		}
	}
	leaf := chain[0]
	other := refuse(OtherCluster, "that node belongs to another cluster than the join token, or the cluster's CA was replaced since; %s of the cluster you mean", makeToken)
	if !found {
		return other
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return refuse(Clock, "the clock says %s here, but the node's certificate is valid from %s to %s; set the clock of the machine that is wrong and try again",
			now.UTC().Format(time.RFC3339), leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return other
	}
	if _, ok := pki.NodeName(leaf); !ok {
		return refuse(OtherCluster, "that address is not a node's; use a node's address and its port for other nodes")
	}
	return nil
}
