package hollow

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/podman-swarm/podman-swarm/internal/netd"
)

// Network gives out addresses of a range and makes nothing.
type Network struct {
	pods netip.Prefix

	mu    sync.Mutex
	given map[string]netd.Attachment
}

// NewNetwork gives out addresses of pods.
func NewNetwork(pods netip.Prefix) *Network {
	return &Network{pods: pods.Masked(), given: map[string]netd.Attachment{}}
}

// Add gives the pod the lowest free address; again, the same one.
func (n *Network) Add(_ context.Context, id string) (netd.Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.given[id]; ok {
		return a, nil
	}
	taken := map[netip.Addr]bool{}
	for _, a := range n.given {
		taken[a.IP] = true
	}
	// The first address is the node's, as in a real pod network.
	for ip := n.pods.Addr().Next().Next(); n.pods.Contains(ip); ip = ip.Next() {
		if !taken[ip] {
			a := netd.Attachment{ID: id, NetNS: "/run/hollow/" + id, IP: ip}
			n.given[id] = a
			return a, nil
		}
	}
	return netd.Attachment{}, fmt.Errorf("pod network %s has no free address", n.pods)
}

// Remove takes a pod's address back.
func (n *Network) Remove(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.given, id)
	return nil
}

// List tells the addresses given.
func (n *Network) List(context.Context) ([]netd.Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Values(n.given), func(a, b netd.Attachment) int { return cmp.Compare(a.ID, b.ID) }), nil
}

// DialContext connects to a server that answers every HTTP request with 200 OK, whatever the address.
func (n *Network) DialContext(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	go answer(far)
	return near, nil
}

// DialPod is DialContext.
func (n *Network) DialPod(ctx context.Context, _, network string, _ uint16) (net.Conn, error) {
	return n.DialContext(ctx, network, "")
}

// Publish opens no port.
func (n *Network) Publish(context.Context, netd.HostPort) (io.Closer, error) {
	return io.NopCloser(nil), nil
}

// answer says OK to everything until the other end closes.
func answer(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		const body = "hollow\n"
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			return
		}
	}
}
