package apiserver

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/labels"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/registry/rest"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
)

// leakRounds is how many repairs in a row must find a port unused before it is freed. A Service
// being created holds its port before it is stored.
const leakRounds = 3

// nodePorts hands out node ports. They are kept in memory only: the stored Services say which
// are taken, so load before serving restores them and repair follows changes made elsewhere.
type nodePorts struct {
	*portallocator.PortAllocator
	stored rest.Lister // Services, internal version
	unused map[int]int // port -> repairs in a row that found it unused
}

func newNodePorts(r utilnet.PortRange) (*nodePorts, error) {
	a, err := portallocator.NewInMemory(r)
	if err != nil {
		return nil, err
	}
	return &nodePorts{PortAllocator: a, unused: map[int]int{}}, nil
}

// load takes the ports of all stored Services. It must run before the first request is served.
func (p *nodePorts) load(ctx context.Context) error {
	obj, err := p.stored.List(ctx, &metainternalversion.ListOptions{})
	if err != nil {
		return fmt.Errorf("load node ports: %w", err)
	}
	list, ok := obj.(*api.ServiceList)
	if !ok {
		return fmt.Errorf("load node ports: got a %T", obj)
	}
	for i := range list.Items {
		spec := &list.Items[i].Spec
		for _, port := range spec.Ports {
			p.take(int(port.NodePort))
		}
		p.take(int(spec.HealthCheckNodePort))
	}
	return nil
}

// take reserves port if it is in the range. Two Services that share a port (other protocols)
// take it once.
func (p *nodePorts) take(port int) {
	if port == 0 || p.Has(port) {
		return
	}
	if err := p.Allocate(port); err != nil {
		klog.Infof("node port %d is used by a Service but not managed: %v", port, err)
	}
}

// repair compares the taken ports with the Services until ctx ends.
func (p *nodePorts) repair(ctx context.Context, services listers.ServiceLister, synced cache.InformerSynced) {
	if !cache.WaitForCacheSync(ctx.Done(), synced) {
		return
	}
	tick := time.NewTicker(repairInterval)
	defer tick.Stop()
	for {
		if list, err := services.List(labels.Everything()); err == nil {
			p.repairOnce(usedPorts(list))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *nodePorts) repairOnce(used map[int]bool) {
	for port := range used {
		p.take(port)
		delete(p.unused, port)
	}
	var free []int
	p.ForEach(func(port int) { // the allocator is locked in here
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
