package helper

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// pods is what is attached. It starts as what the kernel shows.
type pods struct {
	net *network

	mu    sync.Mutex
	alloc *allocator
	byID  map[string]netip.Addr
	busy  map[string]chan struct{} // closed when the work on that id ends
}

// adopt reads back the pods of a previous helper and removes what is only half there.
func adopt(n *network) (*pods, []error) {
	p := &pods{net: n, byID: make(map[string]netip.Addr), busy: make(map[string]chan struct{})}
	links, err := n.links()
	if err != nil {
		return nil, []error{err}
	}
	routes, err := n.routes()
	if err != nil {
		return nil, []error{err}
	}
	entries, err := os.ReadDir(n.Dir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, []error{err}
	}
	var leftovers []error
	for _, e := range entries {
		id := e.Name()
		if id == wire.HomeName {
			continue
		}
		ip, ok := routes[links[LinkName(id)]]
		if ok && wire.CheckID(id) == nil && n.PodCIDR.Contains(ip) && isNS(n.Path(id)) {
			p.byID[id] = ip
			delete(links, LinkName(id))
			continue
		}
		leftovers = append(leftovers, n.erase(id))
	}
	for name := range links {
		leftovers = append(leftovers, n.cut(name))
	}
	used := make([]netip.Addr, 0, len(p.byID))
	for _, ip := range p.byID {
		used = append(used, ip)
	}
	p.alloc = newAllocator(n.PodCIDR, used, p.last())
	return p, leftovers
}

// lock waits until nobody else works on id.
func (p *pods) lock(id string) (unlock func()) {
	for {
		p.mu.Lock()
		wait, taken := p.busy[id]
		if !taken {
			mine := make(chan struct{})
			p.busy[id] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.busy, id)
				p.mu.Unlock()
				close(mine)
			}
		}
		p.mu.Unlock()
		<-wait
	}
}

// add attaches a pod. One that is attached keeps its address.
func (p *pods) add(id string) (netip.Addr, error) {
	defer p.lock(id)()
	ip, known := p.get(id)
	if known && p.net.whole(id) {
		return ip, nil
	}
	if !known {
		var err error
		if ip, err = p.take(); err != nil {
			return netip.Addr{}, err
		}
	}
	err := p.net.build(id, ip)
	if errors.Is(err, unix.EEXIST) { // leftovers of an earlier failure are in the way
		if err = p.net.erase(id); err == nil {
			err = p.net.build(id, ip)
		}
	}
	if err != nil {
		err = errors.Join(err, p.net.erase(id))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		delete(p.byID, id)
		p.alloc.give(ip)
		return netip.Addr{}, fmt.Errorf("attach pod %s: %w", id, err)
	}
	p.byID[id] = ip
	return ip, nil
}

// remove detaches a pod; one that is not attached is fine.
func (p *pods) remove(id string) error {
	defer p.lock(id)()
	if err := p.net.erase(id); err != nil {
		return fmt.Errorf("detach pod %s: %w", id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ip, ok := p.byID[id]; ok {
		delete(p.byID, id)
		p.alloc.give(ip)
	}
	return nil
}

func (p *pods) get(id string) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ip, ok := p.byID[id]
	return ip, ok
}

// page returns pods in the order of their ids, those after the given one.
func (p *pods) page(after string) (refs []wire.PodRef, more bool) {
	p.mu.Lock()
	for id, ip := range p.byID {
		if id > after {
			refs = append(refs, wire.PodRef{ID: id, IP: ip})
		}
	}
	p.mu.Unlock()
	slices.SortFunc(refs, func(a, b wire.PodRef) int { return strings.Compare(a.ID, b.ID) })
	if len(refs) > wire.ListPage {
		return refs[:wire.ListPage], true
	}
	return refs, false
}

// take allocates an address and notes it on disk, so that the next helper goes on from there.
func (p *pods) take() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ip, err := p.alloc.take()
	if err != nil {
		return netip.Addr{}, err
	}
	if err := os.WriteFile(p.net.File("last"), []byte(ip.String()), 0o600); err != nil {
		p.alloc.give(ip)
		return netip.Addr{}, fmt.Errorf("note the last address: %w", err)
	}
	return ip, nil
}

// last is the address handed out last, or an invalid one if that is not known.
func (p *pods) last() netip.Addr {
	b, err := os.ReadFile(p.net.File("last"))
	if err != nil {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(string(b))
	if err != nil || !ip.Is4() {
		return netip.Addr{}
	}
	return ip
}
