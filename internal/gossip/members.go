package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// State is what this node believes of a member.
type State uint8

// A member that is suspected is still Alive: memberlist keeps suspicion to itself.
const (
	Alive State = iota
	Dead        // it does not answer
	Left        // it said good-bye
)

func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Member is a node as this one sees it.
type Member struct {
	Name string
	Addr string // ip:port
	Meta []byte
	// State is since Since, by this node's clock.
	State State
	Since time.Time
}

// entry is a member and what only this package needs to know of it.
type entry struct {
	Member
	addr    netip.AddrPort
	leaving bool
}

// flagLeaving is set in the first byte of a member's metadata when it is about to leave. Other
// bits are unknown to this version and ignored.
const flagLeaving byte = 1

func encodeMeta(meta []byte, leaving bool) []byte {
	var flags byte
	if leaving {
		flags = flagLeaving
	}
	return append([]byte{flags}, meta...)
}

func decodeMeta(b []byte) (meta []byte, leaving bool) {
	if len(b) == 0 {
		return nil, false
	}
	return bytes.Clone(b[1:]), b[0]&flagLeaving != 0
}

// book is what is known of the members. memberlist calls its Notify methods, most of them under its
// own lock: they must not call it back.
type book struct {
	self string
	log  *slog.Logger

	mu      sync.Mutex
	closed  bool // memberlist's timers may fire after its end
	meta    []byte
	leaving bool
	members map[string]entry
	changed chan struct{} // closed and replaced at every change
	// taken is where another member with this node's name was last heard of, and when.
	taken   string
	takenAt time.Time
	warned  limiter
}

var (
	_ memberlist.Delegate         = (*book)(nil)
	_ memberlist.EventDelegate    = (*book)(nil)
	_ memberlist.ConflictDelegate = (*book)(nil)
	_ memberlist.AliveDelegate    = (*book)(nil)
)

func newBook(self string, meta []byte, log *slog.Logger) *book {
	return &book{
		self: self, log: log, meta: bytes.Clone(meta),
		members: map[string]entry{}, changed: make(chan struct{}),
	}
}

// NotifyAlive refuses news that could not be acted upon.
func (b *book) NotifyAlive(n *memberlist.Node) error {
	if n.Name == "" || len(n.Name) > maxName {
		return fmt.Errorf("a name of %d bytes", len(n.Name))
	}
	if len(n.Meta) > memberlist.MetaMaxSize {
		return fmt.Errorf("metadata of %d bytes", len(n.Meta))
	}
	if addr, ok := nodeAddr(n); !ok {
		return fmt.Errorf("address %v", addr)
	}
	return nil
}

// nodeAddr is a member's address, and whether it could be one.
func nodeAddr(n *memberlist.Node) (netip.AddrPort, bool) {
	ip, ok := netip.AddrFromSlice(n.Addr)
	ip = ip.Unmap()
	return netip.AddrPortFrom(ip, n.Port), ok && !ip.IsUnspecified() && n.Port != 0
}

// NotifyJoin implements memberlist.EventDelegate: a member is alive that was not.
func (b *book) NotifyJoin(n *memberlist.Node) {
	b.change(n, func(e *entry) {
		e.State, e.Since = Alive, time.Now()
		if n.Name != b.self {
			b.log.Info("member is alive", "peer", n.Name, "addr", e.Addr)
		}
	})
}

// NotifyUpdate implements memberlist.EventDelegate: a member's metadata is another.
func (b *book) NotifyUpdate(n *memberlist.Node) {
	b.change(n, func(*entry) {})
}

// NotifyLeave implements memberlist.EventDelegate: a member is not alive any more.
func (b *book) NotifyLeave(n *memberlist.Node) {
	b.change(n, func(e *entry) {
		e.State, e.Since = Dead, time.Now()
		if e.leaving {
			e.State = Left
			b.log.Info("member has left", "peer", n.Name, "addr", e.Addr)
		} else {
			b.log.Warn("member is dead", "peer", n.Name, "addr", e.Addr)
		}
	})
}

func (b *book) change(n *memberlist.Node, f func(*entry)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	e := b.members[n.Name]
	e.addr, _ = nodeAddr(n)
	e.Name, e.Addr = n.Name, e.addr.String()
	e.Meta, e.leaving = decodeMeta(n.Meta)
	f(&e)
	b.members[n.Name] = e
	b.wake()
}

// wake tells everyone who took changed. b.mu is held.
func (b *book) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// NotifyConflict implements memberlist.ConflictDelegate: a member is alive and its name is claimed
// from another address.
func (b *book) NotifyConflict(existing, other *memberlist.Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if existing.Name == b.self {
		b.taken, b.takenAt = other.Address(), time.Now()
	}
	if b.warned.allow(existing.Name, time.Now()) {
		b.log.Warn("node name is claimed from two addresses", "peer", existing.Name, "addr", existing.Address(), "other", other.Address())
	}
}

// takenSince tells where another member with this node's name has been heard of since then.
func (b *book) takenSince(t time.Time) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.taken, !b.takenAt.IsZero() && !b.takenAt.Before(t)
}

// NodeMeta implements memberlist.Delegate.
func (b *book) NodeMeta(int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return encodeMeta(b.meta, b.leaving)
}

// setMeta tells whether the metadata is another than before.
func (b *book) setMeta(meta []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes.Equal(b.meta, meta) {
		return false
	}
	b.meta = bytes.Clone(meta)
	return true
}

func (b *book) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaving = true
}

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState are of no use here: there are no
// messages but memberlist's own.
func (b *book) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (b *book) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (b *book) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (b *book) MergeRemoteState([]byte, bool) {}

func (b *book) list() []Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	members := make([]Member, 0, len(b.members))
	for _, e := range b.members {
		m := e.Member
		m.Meta = bytes.Clone(m.Meta)
		members = append(members, m)
	}
	slices.SortFunc(members, func(x, y Member) int { return strings.Compare(x.Name, y.Name) })
	return members
}

// addresses are those of the members alive, and those of the dead.
func (b *book) addresses() (alive map[netip.AddrPort]bool, dead []netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	alive = map[netip.AddrPort]bool{}
	for e := range maps.Values(b.members) {
		switch e.State {
		case Alive:
			alive[e.addr] = true
		case Dead:
			dead = append(dead, e.addr)
		case Left:
		}
	}
	return alive, dead
}

func (b *book) watch() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *book) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.members[name]; ok && e.State != Alive {
		delete(b.members, name)
		b.wake()
	}
}

// close ends the book: it says the same from now on.
func (b *book) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// ErrNameTaken says that another member with this node's name is alive.
var ErrNameTaken = errors.New("node name taken")
