package join

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

const (
	// maxClockDifference is how far the clocks of two nodes may be apart: certificates and the
	// order of writes across partitions depend on them.
	maxClockDifference = 5 * time.Minute
	// cleanupTime bounds the removal of what a failed exchange wrote.
	cleanupTime = 5 * time.Second
)

// Config says whom an Admitter admits, and to what.
type Config struct {
	Keys  *pki.Authority
	Store Store
	// PodRange is the cluster's range of pod addresses, ServiceRange that of Services.
	PodRange, ServiceRange netip.Prefix
	// Release is this node's. Nodes mix when they write the same Format.
	Release string
	Format  int
	// Peers returns the addresses of the nodes that are alive, this one always among them, and
	// Lineage the history of the state that the newcomer shall join.
	Peers   func() []string
	Lineage func() string
	Log     *slog.Logger
}

// Admitter admits newcomers. Every node has one.
type Admitter struct {
	cfg    Config
	nodes  registry
	tokens *Tokens
	guess  throttle
	now    func() time.Time
}

// New returns an Admitter.
func New(cfg Config) *Admitter {
	return &Admitter{
		cfg: cfg, now: time.Now,
		nodes:  registry{store: cfg.Store, pods: cfg.PodRange},
		tokens: NewTokens(cfg.Store, cfg.Keys.CAHash),
	}
}

// Tokens returns the cluster's join tokens.
func (a *Admitter) Tokens() *Tokens { return a.tokens }

// Enroll makes sure that the cluster has a confirmed record of a node that holds its keys already:
// the one that begins the cluster, and at every start the others, should theirs have been lost.
// key is its certificate's: a node whose own key was lost has made another, with the cluster's. A valid wish is the node's range; without one it gets the lowest free.
func (a *Admitter) Enroll(ctx context.Context, name, address string, key []byte, wish netip.Prefix) (Node, error) {
	n := Node{Name: name, Address: address, Key: KeyID(key), Admitted: a.now().UTC()}
	for {
		if err := a.nodes.renew(ctx, n); err != nil {
			return Node{}, fmt.Errorf("enroll node %s: %w", name, err)
		}
		r, err := a.nodes.reserve(ctx, claim{Node: n, wish: wish, outside: true})
		if err == nil && !r.Confirmed {
			err = a.nodes.confirm(ctx, r)
		}
		if errors.Is(err, state.ErrConflict) {
			continue
		}
		if err != nil {
			return Node{}, fmt.Errorf("enroll node %s: %w", name, err)
		}
		r.Confirmed = true
		return r.Node, nil
	}
}

// Serve speaks with one newcomer on conn until it is admitted, refused or gone. The caller closes
// conn. When ctx ends the exchange is broken off.
func (a *Admitter) Serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	from := stranger(conn.RemoteAddr())
	name, err := a.exchange(ctx, conn, from)
	log := a.cfg.Log.With("node", name, "from", from.Addr())
	var refusal *Refusal
	switch {
	case err == nil:
		log.Info("admitted a node")
	case errors.As(err, &refusal):
		log.Warn("refused a newcomer", "reason", refusal.Reason, "why", refusal.Text)
	default:
		log.Info("a newcomer went away", "err", err)
	}
}

func (a *Admitter) exchange(ctx context.Context, conn net.Conn, from netip.Prefix) (name string, err error) {
	req, err := a.listen(conn, from)
	if err != nil {
		return "", tell(conn, err, func(r *Refusal) any { return answer{Refusal: r} })
	}
	held, ans, err := a.consider(ctx, req, from)
	if err != nil {
		return req.Name, tell(conn, err, func(r *Refusal) any { return answer{Refusal: r} })
	}
	defer func() { err = errors.Join(err, a.letGo(ctx, held, err)) }()
	if err := send(conn, ans); err != nil {
		return req.Name, err
	}
	data, err := receive(conn, maxShort)
	if err != nil {
		return req.Name, fmt.Errorf("it was given the keys and did not confirm: %w", err)
	}
	if !confirms(data) {
		return req.Name, tell(conn, refuse(BadRequest, "the newcomer did not confirm; try again"), func(r *Refusal) any { return receipt{Refusal: r} })
	}
	if err := a.confirm(ctx, held, req); err != nil {
		return req.Name, tell(conn, err, func(r *Refusal) any { return receipt{Refusal: r} })
	}
	// It is a node now, whether it hears so or not: it will come again when it does not.
	if err := send(conn, receipt{Done: true}); err != nil {
		a.cfg.Log.Info("an admitted node did not take its receipt", "node", req.Name, "err", err)
	}
	return req.Name, nil
}

// listen reads the request.
func (a *Admitter) listen(conn io.Reader, from netip.Prefix) (*request, error) {
	data, err := receive(conn, maxRequest)
	if err != nil && !errors.Is(err, errTooLong) {
		return nil, err
	}
	if !a.guess.allowed(from, a.now()) {
		return nil, refuse(TooMany, "too many wrong join tokens from %s; wait a minute", from.Addr())
	}
	if err != nil {
		return nil, refuse(BadRequest, "bad join request: %v; use the same release as the cluster (%s)", err, a.cfg.Release)
	}
	req, err := decodeRequest(data)
	if err != nil {
		return nil, refuse(BadRequest, "bad join request: %v; correct it, or use the same release as the cluster (%s)", err, a.cfg.Release)
	}
	return req, nil
}

// tell sends the refusal that err is or, without its particulars, becomes.
func tell(conn io.Writer, err error, message func(*Refusal) any) error {
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		if errors.Is(err, errGone) {
			return err // nobody is there to be told
		}
		refusal = refuse(Unavailable, "the node cannot admit anybody at this moment; try again, or another node (its log says why)")
	}
	return errors.Join(err, send(conn, message(refusal)))
}

// consider checks a request and, when it is good, reserves what the newcomer needs.
func (a *Admitter) consider(ctx context.Context, req *request, from netip.Prefix) (record, *answer, error) {
	if err := a.cfg.Store.Barrier(ctx); err != nil {
		return record{}, nil, err
	}
	if refusal := a.judge(req, from); refusal != nil {
		return record{}, nil, refusal
	}
	n := Node{Name: req.Name, Admitted: a.now().UTC(), Address: req.Address, Key: req.key, Token: req.token.ID}
	held, err := a.nodes.reserve(ctx, claim{Node: n, wish: req.wish, judge: func(v state.View, r record) *Refusal {
		rec, refusal := a.tokens.check(v, req.token)
		if refusal != nil {
			return refusal
		}
		return rec.spent(n.Name, n.Key, pending(v, r))
	}})
	if err != nil {
		return record{}, nil, err
	}
	ans, err := a.compose(req, held)
	if err != nil {
		return record{}, nil, errors.Join(err, a.letGo(ctx, held, err))
	}
	return held, ans, nil
}

// judge reads the token and refuses what can be refused by looking.
func (a *Admitter) judge(req *request, from netip.Prefix) *Refusal {
	var err error
	if req.token, err = pki.ParseToken(req.Token); err != nil {
		return refuse(Mistyped, tokenTyped)
	}
	if !pki.BundleBelieves(a.cfg.Keys.Bundle(), req.token.CA) {
		return refuse(OtherCluster, "join token %s is of another cluster, or older than this cluster's CA; %s of this cluster", req.token.ID, makeToken)
	}
	rec, refusal := a.tokens.check(a.cfg.Store.View(), req.token)
	if refusal != nil {
		if refusal.Reason == WrongToken {
			a.guess.failed(from, a.now())
		}
		return refusal
	}
	if refusal := rec.spent(req.Name, req.key, 0); refusal != nil {
		return refusal
	}
	now := a.now()
	if d := now.Sub(time.UnixMilli(req.Clock)); d.Abs() > maxClockDifference {
		return refuse(Clock, "the clock of %s is %s, this cluster's %s: more than %s apart; set it (for example by NTP) and try again",
			req.Name, time.UnixMilli(req.Clock).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), maxClockDifference)
	}
	if req.Format != a.cfg.Format {
		return refuse(Release, "release %s (format %d) and this cluster's %s (format %d) cannot be mixed; install %s on %s",
			req.Release, req.Format, a.cfg.Release, a.cfg.Format, a.cfg.Release, req.Name)
	}
	return nil
}

// compose makes the answer for a newcomer whose record is held.
func (a *Admitter) compose(req *request, held record) (*answer, error) {
	cert, err := a.cfg.Keys.SignNode(req.CSR, req.Name, []string{req.host})
	if err != nil {
		return nil, refuse(BadRequest, "bad join request: %v; correct it and try again", err)
	}
	peers := a.cfg.Peers()
	return &answer{
		Certificate: cert, Bundle: a.cfg.Keys.Bundle(),
		Cluster: a.cfg.Keys.Cluster(), Lineage: a.cfg.Lineage(),
		PodCIDR: held.PodCIDR, PodRange: a.cfg.PodRange, ServiceRange: a.cfg.ServiceRange,
		Peers: peers[:min(len(peers), maxPeers)], Release: a.cfg.Release,
	}, nil
}

// confirm counts the use and makes the record permanent, in this order: interrupted in between, a
// use is lost rather than won.
func (a *Admitter) confirm(ctx context.Context, held record, req *request) error {
	late := refuse(TooLate, "joining took too long; try again")
	if err := a.cfg.Store.Barrier(ctx); err != nil {
		return err
	}
	if !a.nodes.stands(a.cfg.Store.View(), held) {
		return late
	}
	if err := a.tokens.count(ctx, req.token.ID, held.Name, held.Key); err != nil || held.Confirmed {
		return err
	}
	err := a.nodes.confirm(ctx, held)
	if errors.Is(err, state.ErrConflict) {
		return late
	}
	return err
}

// letGo removes the record of an exchange that failed with err.
func (a *Admitter) letGo(ctx context.Context, held record, err error) error {
	if err == nil || held.Confirmed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := a.nodes.remove(ctx, held); err != nil {
		return fmt.Errorf("remove the record of %s, which expires by itself: %w", held.Name, err)
	}
	return nil
}
