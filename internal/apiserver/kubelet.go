package apiserver

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

// kubeletPort is the port that requests for a node's agent name. Nothing listens on it: it only
// tells "the agent" apart from other ports of a node in nodes/NAME:PORT/proxy.
const kubeletPort = "10250"

// agents tells upstream's pod and node registries how to reach the agent of a node: over
// connections that Config.Nodes opens, whatever the node's addresses are. Upstream insists on
// an address that it can resolve, so each node gets one that exists only in here.
type agents struct {
	dialer    NodeDialer
	transport *http.Transport
	nodes     rest.Getter // set once the node registry exists
	names     sync.Map    // netip.Addr -> node; only nodes that exist
}

func newAgents(d NodeDialer) *agents {
	a := &agents{dialer: d}
	a.transport = &http.Transport{
		DialContext:         a.dial, // upgraded streams dial through this function too
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}
	return a
}

// GetConnectionInfo implements kubeletclient.ConnectionInfoGetter.
func (a *agents) GetConnectionInfo(ctx context.Context, node types.NodeName) (*kubeletclient.ConnectionInfo, error) {
	if _, err := a.nodes.Get(ctx, string(node), &metav1.GetOptions{}); err != nil {
		return nil, err
	}
	addr := inventedAddr(string(node))
	a.names.Store(addr, string(node))
	return &kubeletclient.ConnectionInfo{
		Scheme: "http", Hostname: addr.String(), Port: kubeletPort,
		Transport: a.transport, InsecureSkipTLSVerifyTransport: a.transport,
	}, nil
}

func (a *agents) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	node, ok := a.names.Load(host.Addr())
	if !ok {
		return nil, fmt.Errorf("no node has the address %s", addr)
	}
	conn, err := a.dialer.DialNode(ctx, node.(string))
	if err != nil {
		return nil, fmt.Errorf("reach the agent of node %s: %w", node, err)
	}
	return conn, nil
}

// inventedAddr is a unique local IPv6 address made of the node's name.
func inventedAddr(node string) netip.Addr {
	sum := sha256.Sum256([]byte(node))
	b := [16]byte(sum[:16])
	b[0] = 0xfd
	return netip.AddrFrom16(b)
}
