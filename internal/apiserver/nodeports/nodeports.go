package nodeports

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/registry/core/service/allocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

const (
	// prefix is where the store keeps the node ports that are taken, one key each.
	prefix = "/swarm/nodeports/"
	// repairInterval is how often they are compared with the stored Services, as upstream does.
	repairInterval = 3 * time.Minute
	// leakRounds is how many repairs in a row must find a port unused before it is freed. A Service
	// being created holds its port before it is stored.
	leakRounds = 3
	// writeTimeout bounds one write: upstream's allocators have no context to pass on.
	writeTimeout = 15 * time.Second
)

// Store is what the ports need of *state.Store.
type Store interface {
	Apply(ctx context.Context, w state.Write) (state.Result, error)
	View() state.View
}

// keys is upstream's allocator over the keys: whoever makes a key has the port, on whichever
// node, before and after a restart.
type keys struct {
	store  Store
	life   context.Context //nolint:containedctx // allocator.Interface has none
	base   int
	size   int
	offset int // ports below are for those who ask for one; at random only when all others are taken
}

var _ allocator.Interface = (*keys)(nil)

func (k *keys) key(offset int) string { return prefix + strconv.Itoa(k.base+offset) }

// Allocate implements allocator.Interface.
func (k *keys) Allocate(offset int) (bool, error) {
	if k.Has(offset) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(k.life, writeTimeout)
	defer cancel()
	_, err := k.store.Apply(ctx, state.Write{Key: k.key(offset), Value: []byte("1")})
	if errors.Is(err, state.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reserve node port %d: %w", k.base+offset, err)
	}
	return true, nil
}

// AllocateNext implements allocator.Interface.
func (k *keys) AllocateNext() (offset int, ok bool, err error) {
	taken := make([]bool, k.size)
	k.ForEach(func(offset int) { taken[offset] = true })
	for _, part := range [][2]int{{k.offset, k.size}, {0, k.offset}} {
		var free []int
		for i := part[0]; i < part[1]; i++ {
			if !taken[i] {
				free = append(free, i)
			}
		}
		rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
		for _, offset := range free {
			if ok, err := k.Allocate(offset); ok || err != nil {
				return offset, ok, err
			}
		}
	}
	return 0, false, nil
}

// Release implements allocator.Interface.
func (k *keys) Release(offset int) error {
	if !k.Has(offset) {
		return nil
	}
	ctx, cancel := context.WithTimeout(k.life, writeTimeout)
	defer cancel()
	_, err := k.store.Apply(ctx, state.Write{Key: k.key(offset), Delete: true, Expect: state.Any})
	if err != nil && !errors.Is(err, state.ErrConflict) {
		return fmt.Errorf("release node port %d: %w", k.base+offset, err)
	}
	return nil
}

// ForEach implements allocator.Interface.
func (k *keys) ForEach(f func(int)) {
	k.store.View().Ascend(prefix, strings.TrimSuffix(prefix, "/")+"0", func(e *state.Entry) bool {
		port, err := strconv.Atoi(strings.TrimPrefix(e.Key, prefix))
		if offset := port - k.base; err == nil && offset >= 0 && offset < k.size {
			f(offset)
		}
		return true
	})
}

// Has implements allocator.Interface.
func (k *keys) Has(offset int) bool {
	_, ok := k.store.View().Get(k.key(offset))
	return ok
}

// Free implements allocator.Interface.
func (k *keys) Free() int {
	free := k.size
	k.ForEach(func(int) { free-- })
	return free
}

// Destroy implements allocator.Interface.
func (k *keys) Destroy() {}

// Ports hands out node ports, and keeps those taken in line with the Services that are stored.
type Ports struct {
	*portallocator.PortAllocator
	unused map[int]int // port -> repairs in a row that found it unused
}

// New returns the ports of r. Writes are bounded by life and a timeout: upstream's callers have no
// context to pass on.
func New(life context.Context, r utilnet.PortRange, store Store) (*Ports, error) {
	a, err := portallocator.New(r, func(size int, _ string, offset int) (allocator.Interface, error) {
		return &keys{store: store, life: life, base: r.Base, size: size, offset: offset}, nil
	})
	if err != nil {
		return nil, err
	}
	return &Ports{PortAllocator: a, unused: map[int]int{}}, nil
}

// take reserves port if it is in the range. Two Services that share a port (other protocols)
// take it once.
func (p *Ports) take(port int) {
	if port == 0 || p.Has(port) {
		return
	}
	if err := p.Allocate(port); err != nil && !errors.Is(err, portallocator.ErrAllocated) {
		klog.Infof("node port %d is used by a Service but not managed: %v", port, err)
	}
}

// Repair compares the taken ports with the Services: at once, from time to time, and when a Service
// gives a port up, which may be another's too after two halves of the cluster have met. Every node does
// this at the same time, and finds nothing to write.
func (p *Ports) Repair(ctx context.Context, services listers.ServiceLister, informer cache.SharedIndexInformer) {
	again := make(chan struct{}, 1)
	look := func() {
		select {
		case again <- struct{}{}:
		default:
		}
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, obj any) {
			if !maps.Equal(of(old), of(obj)) {
				look()
			}
		},
		DeleteFunc: func(any) { look() },
	})
	if err != nil {
		klog.Errorf("watch Services for their node ports: %v", err)
		return
	}
	defer informer.RemoveEventHandler(registration) //nolint:errcheck // the informer ends too
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return
	}
	tick := time.NewTicker(repairInterval)
	defer tick.Stop()
	round := true
	for {
		if list, err := services.List(labels.Everything()); err == nil {
			used := usedPorts(list)
			p.takeAll(used)
			if round {
				p.freeLeaks(used)
			}
		}
		select {
		case <-tick.C:
			round = true
		case <-again:
			round = false
		case <-ctx.Done():
			return
		}
	}
}

func (p *Ports) takeAll(used map[int]bool) {
	for port := range used {
		p.take(port)
		delete(p.unused, port)
	}
}

// freeLeaks is one round of looking for ports that nobody uses.
func (p *Ports) freeLeaks(used map[int]bool) {
	var free []int
	p.ForEach(func(port int) {
		if used[port] {
			return
		}
		if p.unused[port]++; p.unused[port] >= leakRounds {
			free = append(free, port)
		}
	})
	for _, port := range free {
		delete(p.unused, port)
		if err := p.Release(port); err != nil {
			klog.Infof("release leaked node port %d: %v", port, err)
		}
	}
	for port := range p.unused {
		if !p.Has(port) { // freed by its Service's deletion
			delete(p.unused, port)
		}
	}
}

// of are the ports of what an informer hands out.
func of(obj any) map[int]bool {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return nil
	}
	return usedPorts([]*corev1.Service{s})
}

func usedPorts(services []*corev1.Service) map[int]bool {
	used := map[int]bool{}
	for _, s := range services {
		for _, port := range s.Spec.Ports {
			used[int(port.NodePort)] = true
		}
		used[int(s.Spec.HealthCheckNodePort)] = true
	}
	delete(used, 0)
	return used
}
