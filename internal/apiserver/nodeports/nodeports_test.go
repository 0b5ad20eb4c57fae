package nodeports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

func openStore(t *testing.T) *state.Store {
	t.Helper()
	s, err := state.Open(t.Context(), state.Config{NodeID: "n1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func portsOver(t *testing.T, size int, s Store) *Ports {
	t.Helper()
	p, err := New(t.Context(), utilnet.PortRange{Base: 30000, Size: size}, s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Four servers hand out all ports of a range at the same time: each exactly once, and then no more.
func TestNodePortsAmongMany(t *testing.T) {
	const servers, size = 4, 100
	store := openStore(t)
	var mu sync.Mutex
	given := map[int]int{}
	var g sync.WaitGroup
	for range servers {
		p := portsOver(t, size, store)
		g.Go(func() {
			for {
				port, err := p.AllocateNext()
				if errors.Is(err, portallocator.ErrFull) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				given[port]++
				mu.Unlock()
			}
		})
	}
	g.Wait()
	for port, n := range given {
		if n != 1 || port < 30000 || port >= 30000+size {
			t.Errorf("port %d was given %d times", port, n)
		}
	}
	if len(given) != size {
		t.Errorf("%d ports were given, of %d", len(given), size)
	}
	a, b := portsOver(t, size, store), portsOver(t, size, store)
	if a.Free() != 0 || b.Used() != size {
		t.Errorf("%d are free, %d are used", a.Free(), b.Used())
	}
	if err := a.Release(30007); err != nil {
		t.Fatal(err)
	}
	if err := a.Release(30007); err != nil {
		t.Errorf("released twice: %v", err)
	}
	if port, err := b.AllocateNext(); err != nil || port != 30007 {
		t.Errorf("the port that another server freed: %d, %v", port, err)
	}
	if err := a.Allocate(30007); !errors.Is(err, portallocator.ErrAllocated) {
		t.Errorf("the port that another server took: %v", err)
	}
}

// Ports that somebody asks for come from below; those below are given at random last.
func TestNodePortsLeaveRoom(t *testing.T) {
	p := portsOver(t, 64, openStore(t)) // upstream's rule: the lower 16
	for i := range 64 {
		port, err := p.AllocateNext()
		if err != nil {
			t.Fatal(err)
		}
		if low := port < 30016; low != (i >= 48) {
			t.Errorf("allocation %d is port %d", i, port)
		}
	}
}

// failing is a store without a leader.
type failing struct{ *state.Store }

func (failing) Apply(ctx context.Context, w state.Write) (state.Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		return state.Result{}, errors.New("a write without a deadline")
	}
	return state.Result{}, fmt.Errorf("write %s: %w", w.Key, state.ErrNoLeader)
}

func TestNodePortsWithoutLeader(t *testing.T) {
	store := openStore(t)
	if err := portsOver(t, 10, store).Allocate(30001); err != nil {
		t.Fatal(err)
	}
	p := portsOver(t, 10, failing{store})
	if _, err := p.AllocateNext(); !errors.Is(err, state.ErrNoLeader) {
		t.Errorf("allocate: %v", err)
	}
	if err := p.Release(30001); !errors.Is(err, state.ErrNoLeader) {
		t.Errorf("release: %v", err)
	}
	if !p.Has(30001) {
		t.Error("a port that could not be released is free")
	}
}

func TestNodePortRepair(t *testing.T) {
	p := portsOver(t, 10, openStore(t))
	for _, port := range []int{30001, 30002} {
		p.take(port)
	}
	p.take(30001) // a second user of the same port is no error
	p.take(8080)  // out of range
	used := map[int]bool{30001: true, 30003: true}
	round := func() { p.takeAll(used); p.freeLeaks(used) }
	for i := 1; i < leakRounds; i++ {
		round()
		if !p.Has(30002) {
			t.Fatalf("freed after %d rounds, a Service may still be on its way", i)
		}
	}
	if !p.Has(30003) {
		t.Error("a port in use was not taken")
	}
	round()
	if p.Has(30002) || !p.Has(30001) {
		t.Error("the leaked port is not free, or the used one is")
	}
	if len(p.unused) != 0 {
		t.Errorf("remembers %v", p.unused)
	}
}
