package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

// kubeletPort is the port that requests for a node's agent name. Nothing listens on it: it only
// tells "the agent" apart from other ports of a node in nodes/NAME:PORT/proxy.
const kubeletPort = "10250"

// agents tells upstream's pod and node registries how to reach the agent of a node: as host
// NODE, over connections that Config.Nodes opens.
type agents struct {
	transport *http.Transport
}

func newAgents(nodes NodeDialer) *agents {
	return &agents{transport: &http.Transport{
		// Upgraded streams dial through this function too.
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			conn, err := nodes.DialNode(ctx, node)
			if err != nil {
				return nil, fmt.Errorf("reach the agent of node %s: %w", node, err)
			}
			return conn, nil
		},
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}}
}

// GetConnectionInfo implements kubeletclient.ConnectionInfoGetter.
func (a *agents) GetConnectionInfo(_ context.Context, node types.NodeName) (*kubeletclient.ConnectionInfo, error) {
	return &kubeletclient.ConnectionInfo{
		Scheme: "http", Hostname: string(node), Port: kubeletPort,
		Transport: a.transport, InsecureSkipTLSVerifyTransport: a.transport,
	}, nil
}
