package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/wire"
)

// DialNode opens a stream to the agent of another node: logs, exec, attach, port-forward.
func (p *Peers) DialNode(ctx context.Context, node string) (net.Conn, error) {
	m, ok := p.Member(node)
	if !ok {
		return nil, fmt.Errorf("node %s is not a member of the swarm that this node has heard of", node)
	}
	c, err := p.Wire.DialNode(ctx, node, m.Addr, nodeProto)
	if err != nil {
		return nil, fmt.Errorf("node %s (%s, %s): %w", node, m.Addr, m.State, err)
	}
	return c, nil
}

// Streams are the connections that other nodes open to this node's agent.
func (p *Peers) Streams() net.Listener { return p.Wire.Listener(nodeProto) }

// A connection to a pod of another node begins with one line, "tcp ADDRESS\n", answered by "\n" or
// by why not, one line.
const (
	maxLine     = 512
	dialTimeout = 10 * time.Second
)

// DialPod connects to an address in the pod network of another node.
func (p *Peers) DialPod(ctx context.Context, node, network, addr string) (net.Conn, error) {
	c, answer, err := p.begin(ctx, node, dialProto, network+" "+addr)
	if err == nil && answer != "" {
		_ = c.Close()
		err = errors.New(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("pod on node %s: %w", node, err)
	}
	return c, nil
}

// begin opens a connection to a node that begins with a line each way. ctx is for no more than that.
func (p *Peers) begin(ctx context.Context, node, proto, line string) (*wire.Conn, string, error) {
	m, ok := p.Member(node)
	if !ok {
		return nil, "", errors.New("it is not known here")
	}
	c, err := p.Wire.DialNode(ctx, node, m.Addr, proto)
	if err != nil {
		return nil, "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer string
	if _, err = fmt.Fprintln(c, line); err == nil {
		answer, err = readLine(c)
	}
	if err != nil {
		_ = c.Close()
		return nil, "", err
	}
	return c, answer, nil
}

// readLine reads byte by byte: what follows the line belongs to the connection's user.
func readLine(r io.Reader) (string, error) {
	line := make([]byte, 0, 64)
	for one := make([]byte, 1); len(line) < maxLine; {
		if _, err := io.ReadFull(r, one); err != nil {
			return "", err
		}
		if one[0] == '\n' {
			return string(line), nil
		}
		line = append(line, one[0])
	}
	return "", fmt.Errorf("line of more than %d bytes", maxLine)
}

// AnswerDials has other nodes connect to pods of this node: addresses in pods, and no others.
func (p *Peers) AnswerDials(pods netip.Prefix, dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	p.Wire.Handle(dialProto, func(ctx context.Context, c *wire.Conn) {
		_ = c.SetReadDeadline(time.Now().Add(dialTimeout))
		line, err := readLine(c)
		if err != nil {
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		pod, err := dialLine(ctx, line, pods, dial)
		if err != nil {
			_, _ = fmt.Fprintln(c, oneLine(err))
			return
		}
		if _, err := io.WriteString(c, "\n"); err == nil {
			splice(ctx, c, pod)
		}
		_ = pod.Close()
	})
}

func dialLine(ctx context.Context, line string, pods netip.Prefix, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (net.Conn, error) {
	network, addr, _ := strings.Cut(line, " ")
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || network != "tcp" || !pods.Contains(ap.Addr()) {
		return nil, fmt.Errorf("%q is not an address of this node's pods (%s)", line, pods)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return dial(ctx, network, addr)
}

// splice copies both ways until both directions have ended, passing half-closes on.
func splice(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = a.Close(); _ = b.Close() })
	defer stop()
	var both sync.WaitGroup
	half := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if cw, ok := to.(interface{ CloseWrite() error }); ok {
			_ = cw.CloseWrite()
		} else {
			_ = to.Close()
		}
	}
	both.Go(func() { half(a, b) })
	both.Go(func() { half(b, a) })
	both.Wait()
}
