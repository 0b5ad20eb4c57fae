package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/node/predecessor"
	"github.com/podman-swarm/podman-swarm/internal/node/sight"
	"github.com/podman-swarm/podman-swarm/internal/simnet"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/lab"
)

const (
	gossipProto = "gossip"
	raftProto   = "raft/"
	nodesPrefix = "/swarm/nodes/"
)

// node is a machine: its disk and what its data directory says, also while it is off.
type node struct {
	c          *cluster
	name, addr string
	rack       string // the name of its first machine
	drive      *drive
	skew       atomic.Int64 // nanoseconds
	pods       containers

	mu      sync.Mutex
	now     *life    // nil: it is off
	lineage string   // to join, as in member.json; empty: it begins the cluster
	met     []string // addresses of others, as they were known last
}

// life is one run of a node's agent.
type life struct {
	n      *node
	host   *simnet.Host
	gossip *gossip.Gossip
	store  atomic.Pointer[state.Store]
	fence  *fence.Fence
	lost   *predecessor.Index
	log    *slog.Logger
	ctx    context.Context
	end    context.CancelFunc
	work   sync.WaitGroup
	over   atomic.Bool // what it says from now on, nobody hears

	mu   sync.Mutex
	mine peers.Meta
}

// life is the present one, nil when the node is off.
func (n *node) life() *life {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

// store is the one that clients reach, nil when there is none.
func (n *node) store() *state.Store {
	if l := n.life(); l != nil {
		return l.store.Load()
	}
	return nil
}

// clock is the node's, which may be wrong.
func (n *node) clock() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }

// boot starts the node's agent, in the order of package node.
func (n *node) boot() error {
	l := &life{n: n, log: n.c.log.With("node", n.name)}
	l.ctx, l.end = context.WithCancel(context.Background())
	l.host = n.c.net.Plug(l.ctx, n.name, n.addr, l.answer)
	listener, err := l.host.Listen(gossipProto)
	if err != nil {
		return err
	}
	l.gossip, err = gossip.Open(l.ctx, gossip.Config{
		Name: n.name, Addr: n.addr, Packets: l.host.Packets(), Listener: listener,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) { return l.host.Dial(ctx, addr, gossipProto) },
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, Label: "sim", Meta: l.mine.Encode(), Log: l.log,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.now = l
	join := n.lineage
	n.mu.Unlock()
	store, err := state.Open(l.ctx, state.Config{
		Dir: n.drive.dir, NodeID: n.name, Addr: n.addr, Log: l.log.With("part", "state"), Network: l, Membership: l,
		Join: join, Freeze: n.c.freeze, MinFree: 1,
		Lab: lab.Lab{
			Clock: n.clock, Disk: n.drive.probe(), Segment: 32 << 10, Compact: n.c.compact,
			Step: func(step string) { n.c.at(n, step) },
		},
	})
	if err != nil {
		n.mu.Lock()
		n.now = nil
		n.mu.Unlock()
		l.host.Unplug(false)
		l.end()
		return errors.Join(err, l.gossip.Close())
	}
	l.store.Store(store)
	l.run()
	return nil
}

// start boots the node, again and again, as its service does: a replica that is damaged needs peers,
// which may not have met it yet.
func (n *node) start() error {
	for try := 1; ; try++ {
		err := n.boot()
		if err == nil || try == 5 {
			return err
		}
		n.c.say("boot %s: %v", n.name, err)
		elapse(2 * time.Second)
	}
}

// run does what a node does once its state is open.
func (l *life) run() {
	l.fence = fence.New(fence.Config{
		Sight: l.sight, Seen: l.gossip.Changed, Now: l.n.clock, File: l.n.fenceFile(), Log: l.log,
	})
	l.lost = predecessor.New(predecessor.Config{Node: l.n.name, Store: l.store.Load(), Pod: readPod, Log: l.log})
	pods := &podRuntime{l: l, stopping: map[string]bool{}}
	l.work.Go(func() { _ = l.gossip.Run(l.ctx, l.known) })
	l.work.Go(func() { _ = l.fence.Run(l.ctx) })
	for _, part := range []func(context.Context){l.remember, l.register, l.decide, pods.run, l.observe} {
		l.work.Go(func() { part(l.ctx) })
	}
}

// fenceFile is lost with the machine's power, as its containers are.
func (n *node) fenceFile() string { return filepath.Join(n.c.base, n.name+".fence") }

// stop ends the agent without a word: its process was killed, or its machine lost power.
func (n *node) stop(power bool) error {
	n.mu.Lock()
	l := n.now
	n.now = nil
	n.mu.Unlock()
	if l == nil {
		return fmt.Errorf("%s is off already", n.name)
	}
	l.host.Unplug(power)
	l.over.Store(true)
	err := n.drive.stop(power)
	n.pods.die(n)
	_ = os.Remove(n.fenceFile()) // there may be none
	n.c.bury(l)
	return err
}

// shutDown ends the agent in an orderly way, as before an upgrade: pods go on.
func (n *node) shutDown() error {
	n.mu.Lock()
	l := n.now
	n.now = nil
	n.mu.Unlock()
	if l == nil {
		return fmt.Errorf("%s is off already", n.name)
	}
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	_ = l.store.Load().HandOver(ctx) // a courtesy
	l.end()
	l.work.Wait()
	if err := l.store.Load().Close(); err != nil { // its disk may be full
		n.c.say("close %s: %v", n.name, err)
	}
	l.over.Store(true)
	_ = l.gossip.Close()
	l.host.Unplug(false)
	return n.drive.stop(false)
}

// close ends what is left of a life that is over.
func (l *life) close() {
	l.end()
	if s := l.store.Load(); s != nil {
		_ = s.Close() // the disk is gone
	}
	l.work.Wait()
	_ = l.gossip.Close()
}

func (l *life) answer(ctx context.Context, request []byte) []byte {
	if s := l.store.Load(); s != nil {
		return s.Serve(ctx, request)
	}
	return nil
}

// Listen implements state.Network.
func (l *life) Listen(lineage string) (net.Listener, error) {
	return l.host.Listen(raftProto + lineage)
}

// Dial implements state.Network.
func (l *life) Dial(ctx context.Context, addr, lineage string) (net.Conn, error) {
	return l.host.Dial(ctx, addr, raftProto+lineage)
}

// Call implements state.Network.
func (l *life) Call(ctx context.Context, addr string, request []byte) ([]byte, error) {
	answer, err := l.host.Call(ctx, addr, request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = fmt.Errorf("%w: %w", state.ErrUnsent, err)
	}
	return answer, err
}

// Peers implements state.Membership, as package node/peers does.
func (l *life) Peers() []state.Peer {
	var out []state.Peer
	for _, m := range l.gossip.Members() {
		meta, err := peers.DecodeMeta(m.Meta)
		if err == nil && m.State == gossip.Alive && meta.Standing.Lineage != "" {
			out = append(out, state.Peer{Name: m.Name, Addr: m.Addr, Standing: meta.Standing})
		}
	}
	return out
}

// Changed implements state.Membership.
func (l *life) Changed() <-chan struct{} { return l.gossip.Changed() }

// Tell implements state.Membership.
func (l *life) Tell(s state.Standing) {
	l.mu.Lock()
	l.mine.Standing = s
	words := l.mine.Encode()
	l.mu.Unlock()
	if err := l.gossip.SetMeta(words); err != nil {
		l.log.Warn("spread own standing", "err", err)
	}
}

// record is what the cluster knows of a node.
type record struct {
	Name, Address string
	Fenced        bool `json:",omitempty"`
}

// records are the nodes in a view.
func records(v state.View) []record {
	var out []record
	v.Ascend(nodesPrefix, nodesPrefix[:len(nodesPrefix)-1]+"0", func(e *state.Entry) bool {
		var r record
		if json.Unmarshal(e.Value, &r) == nil {
			out = append(out, r)
		}
		return true
	})
	return out
}

// known are the addresses of all other nodes that this one can think of.
func (l *life) known() []string {
	l.n.mu.Lock()
	known := slices.Clone(l.n.met)
	l.n.mu.Unlock()
	for _, r := range records(l.store.Load().View()) {
		known = append(known, r.Address)
	}
	slices.Sort(known)
	return slices.DeleteFunc(slices.Compact(known), func(a string) bool { return a == l.n.addr })
}

// remember keeps the addresses of the others for a start at which the state is not there.
func (l *life) remember(ctx context.Context) {
	for {
		changed := l.gossip.Changed()
		var met []string
		for _, m := range l.gossip.Members() {
			if m.State == gossip.Alive && m.Name != l.n.name {
				met = append(met, m.Addr)
			}
		}
		if len(met) > 0 {
			l.n.mu.Lock()
			l.n.met = met
			l.n.mu.Unlock()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// register keeps the record of this node.
func (l *life) register(ctx context.Context) {
	s := l.store.Load()
	if s.Ready(ctx) != nil {
		return
	}
	value, _ := json.Marshal(record{Name: l.n.name, Address: l.n.addr}) // never fails
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := s.Apply(try, state.Write{Key: nodesPrefix + l.n.name, Value: value})
		cancel()
		if err == nil || errors.Is(err, state.ErrConflict) {
			return
		}
		pause(ctx, time.Second)
	}
}

// sight is what the node's fence goes by.
func (l *life) sight() fence.Sight {
	s := l.store.Load()
	st := s.Status()
	out := fence.Sight{Settled: !st.Joining && st.Leader != ""}
	alive := map[string]bool{}
	for _, m := range l.gossip.Members() {
		alive[m.Name] = m.State == gossip.Alive
		meta, err := peers.DecodeMeta(m.Meta)
		if err == nil && alive[m.Name] && meta.Standing.Lineage != "" && meta.Standing.Lineage != st.Lineage.ID {
			out.Settled, out.Torn = false, true
		}
	}
	for _, r := range records(s.View()) {
		switch {
		case alive[r.Name]:
			out.Alive++
			out.Known++
		case !r.Fenced:
			out.Known++
		}
	}
	out.Until = sight.Until(st.Lineage, out.Known)
	return out
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
