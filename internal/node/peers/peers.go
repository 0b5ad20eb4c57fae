package peers

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/wire"
)

// Protocols between peers, as ALPN names. The number is the version of what is said.
const (
	gossipProto = "psw-gossip/1"
	raftProto   = "psw-raft/1/" // and the lineage: another's streams are refused in the handshake
	stateProto  = "psw-state/1"
	nodeProto   = "psw-node/1"
	dialProto   = "psw-dial/1"
	// JoinProto is spoken by newcomers, who have no certificate yet.
	JoinProto = "psw-join/1"
)

// Config says how this node meets others.
type Config struct {
	Name string
	// Bind is where to listen, Addr what others are told, both host:port.
	Bind, Addr string
	// API is where this node's Kubernetes API is reached, host:port.
	API     string
	Release string
	// Cluster names the swarm: gossip of another one is not listened to.
	Cluster string
	Trust   wire.Trust
	// Refuse keeps out a node whose certificate is in order, for example one that was removed.
	Refuse func(*x509.Certificate) error
	// TurnedAway is called when the node at an address refuses this one in the same way; it must not block.
	TurnedAway func(addr string)
	Keys       [][]byte
	Log        *slog.Logger
}

// Member is what is known of a node.
type Member struct {
	Name, Addr string
	State      gossip.State
	Since      time.Time
	Meta       Meta // zero when it said nothing that can be read
}

// Alive reports whether the node counts as living; a suspicion is not a death.
func (m Member) Alive() bool { return m.State == gossip.Alive }

// Peers is this node's place among the others.
type Peers struct {
	cfg    Config
	Wire   *wire.Wire
	Gossip *gossip.Gossip

	mu   sync.Mutex
	mine Meta
}

// Open listens and begins to gossip; nobody is contacted yet.
func Open(ctx context.Context, cfg Config) (*Peers, error) {
	w, err := wire.Listen(ctx, wire.Config{Addr: cfg.Bind, Trust: cfg.Trust, Refuse: cfg.Refuse, Log: cfg.Log.With("part", "wire")})
	if err != nil {
		return nil, fmt.Errorf("--bind-addr: %w", err)
	}
	p := &Peers{cfg: cfg, Wire: w, mine: Meta{API: cfg.API, Release: cfg.Release}}
	p.Gossip, err = gossip.Open(ctx, gossip.Config{
		Name: cfg.Name, Addr: cfg.Addr, Bind: cfg.Bind, Keys: cfg.Keys, Label: cfg.Cluster,
		Listener: w.Listener(gossipProto), Dial: p.dial(gossipProto), Meta: p.mine.Encode(), Log: cfg.Log,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--bind-addr: %w", err), w.Close())
	}
	return p, nil
}

// Close ends everything with others, without a farewell.
func (p *Peers) Close() error { return errors.Join(p.Gossip.Close(), p.Wire.Close()) }

func (p *Peers) dial(proto string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := p.Wire.Dial(ctx, addr, proto)
		if errors.Is(err, wire.ErrTurnedAway) && p.cfg.TurnedAway != nil {
			p.cfg.TurnedAway(addr)
		}
		if err != nil {
			return nil, err // a nil *wire.Conn must not become a non-nil net.Conn
		}
		return c, nil
	}
}

// Members lists every node that was heard of, sorted by name, this one included.
func (p *Peers) Members() []Member {
	var out []Member
	for _, m := range p.Gossip.Members() {
		meta, err := DecodeMeta(m.Meta)
		if err != nil {
			meta = Meta{}
		}
		out = append(out, Member{Name: m.Name, Addr: m.Addr, State: m.State, Since: m.Since, Meta: meta})
	}
	return out
}

// Changed returns a channel that closes when Members changes. Take it before looking.
func (p *Peers) Changed() <-chan struct{} { return p.Gossip.Changed() }

// Member returns what is known of a node.
func (p *Peers) Member(name string) (Member, bool) {
	members := p.Members()
	i := slices.IndexFunc(members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return members[i], true
}

// Network is how the store reaches other replicas.
func (p *Peers) Network() state.Network { return network{p} }

type network struct{ *Peers }

func (n network) Listen(lineage string) (net.Listener, error) {
	return n.Wire.Listener(raftProto + lineage), nil
}

func (n network) Dial(ctx context.Context, addr, lineage string) (net.Conn, error) {
	return n.dial(raftProto+lineage)(ctx, addr)
}

func (n network) Call(ctx context.Context, addr string, request []byte) ([]byte, error) {
	answer, err := n.Wire.Call(ctx, addr, stateProto, request)
	if errors.Is(err, wire.ErrUnsent) {
		err = fmt.Errorf("%w: %w", state.ErrUnsent, err)
	}
	return answer, err
}

// Answer has calls of other replicas answered.
func (p *Peers) Answer(serve func(ctx context.Context, request []byte) []byte) {
	p.Wire.Serve(stateProto, func(ctx context.Context, _ string, request []byte) []byte { return serve(ctx, request) })
}

// Membership tells the store who is alive.
func (p *Peers) Membership() state.Membership { return membership{p} }

type membership struct{ all *Peers }

func (m membership) Peers() []state.Peer {
	var out []state.Peer
	for _, member := range m.all.Members() {
		if member.Alive() && member.Meta.Standing.Lineage != "" {
			out = append(out, state.Peer{Name: member.Name, Addr: member.Addr, Standing: member.Meta.Standing})
		}
	}
	return out
}

func (m membership) Changed() <-chan struct{} { return m.all.Changed() }

func (m membership) Tell(s state.Standing) { m.all.tell(func(mine *Meta) { mine.Standing = s }) }

// Stopping tells the others that this agent ends on purpose and is about to be started again: its
// pods run on meanwhile, and need no replacement.
func (p *Peers) Stopping() { p.tell(func(mine *Meta) { mine.Stopping = true }) }

func (p *Peers) tell(change func(mine *Meta)) {
	p.mu.Lock()
	change(&p.mine)
	words := p.mine.Encode()
	p.mu.Unlock()
	if err := p.Gossip.SetMeta(words); err != nil {
		p.cfg.Log.Debug("spread words about this node", "err", err)
	}
}
