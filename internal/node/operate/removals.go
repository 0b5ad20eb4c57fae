package operate

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// RemovedPrefix is where the names of removed nodes are kept, as long as a certificate of theirs
// may be valid.
const RemovedPrefix = "/swarm/removed/"

const (
	// removedFor is longer than a node's certificate lives.
	removedFor = 100 * 24 * time.Hour
	// certSkew is how far certificates are dated back.
	certSkew = 5 * time.Minute
)

// Removal says when a node was removed, and whom to refuse from then on: whoever joins later under
// the same name has another key.
type Removal struct {
	Removed time.Time `json:"removed"`
	// From is later than Removed when the node itself has said that it leaves: it has yet to say more.
	From time.Time `json:"from,omitzero"`
	// Key names the node's key; empty when it was not known.
	Key string `json:"key,omitempty"`
}

// refuses tells whether a certificate in the name of the removed node is worth nothing.
func (r Removal) refuses(cert *x509.Certificate, now time.Time) bool {
	switch {
	case now.Before(r.From):
		return false
	case r.Key != "":
		return r.Key == join.KeyID(cert.RawSubjectPublicKeyInfo)
	}
	return cert.NotBefore.Add(certSkew).Before(r.Removed)
}

// RefuseRemoved tells why the owner of a certificate that is in order may not take part: its name is
// that of a node that was removed. Nil: it may.
func RefuseRemoved(v state.View, cert *x509.Certificate, now time.Time) error {
	name, ok := pki.NodeName(cert)
	if !ok {
		return nil
	}
	r, ok := removalOf(v, name)
	if !ok || !r.refuses(cert, now) || r.Key == "" && admittedSince(v, name, cert) {
		return nil
	}
	return fmt.Errorf("it was removed from the swarm at %s: to bring it back, reset it and join again", r.Removed.Format(time.RFC3339))
}

// admittedSince tells whether a node was admitted with that key after it was removed, which took its
// record away. Dates cannot tell when both happen within the difference of two machines' clocks.
func admittedSince(v state.View, name string, cert *x509.Certificate) bool {
	for _, n := range join.Nodes(v) {
		if n.Name == name {
			return n.Key != "" && n.Key == join.KeyID(cert.RawSubjectPublicKeyInfo)
		}
	}
	return false
}

func removalOf(v state.View, name string) (r Removal, ok bool) {
	e, ok := v.Get(RemovedPrefix + name)
	if ok && json.Unmarshal(e.Value, &r) != nil {
		return Removal{}, true // of a newer release: refuse what is dated, which all certificates are
	}
	return r, ok
}

// remember writes down that a node is removed; a node that says so of itself has a while to finish.
func (n nodes) remember(ctx context.Context, name string, grace time.Duration) error {
	r := Removal{Removed: time.Now().UTC()}
	if grace > 0 {
		r.From = r.Removed.Add(grace)
	}
	view := n.Store.View()
	for _, known := range join.Nodes(view) {
		if known.Name == name {
			r.Key = known.Key
		}
	}
	if was, ok := removalOf(view, name); ok && r.Key == "" { // as after a restore, or when it has left half way
		r.Key = was.Key
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = n.Store.Apply(ctx, state.Write{Key: RemovedPrefix + name, Value: data, Expect: state.Any, TTL: int64(removedFor / time.Second)})
	return unavailable(err)
}

// Removals has this node do what removals ask of every node, until ctx ends: connections of the
// removed end at once, and nobody remembers them as members that died.
type Removals struct {
	Store *state.Store
	Peers *peers.Peers
	Log   *slog.Logger
}

// Run blocks until ctx ends.
func (r Removals) Run(ctx context.Context) error {
	if err := r.Store.Ready(ctx); err != nil {
		return withoutCanceled(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	news := make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() { r.watch(ctx, news) })
	defer watching.Wait()
	defer cancel()
	for {
		changed := r.Peers.Changed()
		var later <-chan time.Time
		if wait := r.settle(time.Now()); wait > 0 {
			later = time.After(wait)
		}
		select {
		case <-news:
		case <-changed:
		case <-later:
		case <-ctx.Done():
			return nil
		}
	}
}

// settle does what is due now, and says how long nothing more is; 0: until something changes.
func (r Removals) settle(now time.Time) (wait time.Duration) {
	view := r.Store.View()
	r.Peers.Wire.Recheck()
	view.Ascend(RemovedPrefix, RemovedPrefix+"\xff", func(e *state.Entry) bool {
		name := e.Key[len(RemovedPrefix):]
		if removal, ok := removalOf(view, name); ok && now.Before(removal.From) {
			if left := removal.From.Sub(now); wait == 0 || left < wait {
				wait = left
			}
		}
		if _, back := view.Get(join.NodesPrefix + name); back {
			return true
		}
		if m, ok := r.Peers.Member(name); ok && (m.State == gossip.Dead || m.State == gossip.Left) {
			r.Peers.Gossip.Forget(name)
		}
		return true
	})
	return wait
}

// watchRetry is the pause before a watch that ended is opened again.
const watchRetry = time.Second

// watch tells of changes of removals and of the nodes' records.
func (r Removals) watch(ctx context.Context, news chan<- struct{}) {
	tell := func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		err := r.follow(ctx, tell)
		if ctx.Err() != nil {
			return
		}
		r.Log.Debug("watch removed nodes", "err", err)
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
}

func (r Removals) follow(ctx context.Context, tell func()) error {
	w, err := r.Store.WatchPrefix(ownKeys, r.Store.Revision())
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		tell()
		if _, _, err := w.Next(ctx, nil); err != nil {
			return err
		}
	}
}

func withoutCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
