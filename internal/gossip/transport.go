package gossip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxDatagram is more than memberlist sends (1,400 bytes and a checksum).
	maxDatagram = 2048
	// maxInbound bounds the streams that others have opened. memberlist reads a state of up to
	// 20 MB from each.
	maxInbound = 64
	// backoff is the pause after an error of a socket that may last.
	backoff = 50 * time.Millisecond
)

// transport carries memberlist's datagrams and streams. One goroutine reads the socket, one takes
// streams in; neither keeps anything: what is not taken waits in the kernel, or is lost there.
type transport struct {
	addr     netip.AddrPort // as advertised
	packets  net.PacketConn
	listener net.Listener
	dial     func(ctx context.Context, addr string) (net.Conn, error)
	log      *slog.Logger

	life    context.Context // memberlist's calls bring no context; this one ends with Shutdown
	end     context.CancelFunc
	arrived chan *memberlist.Packet
	taken   chan net.Conn

	mu      sync.Mutex
	closed  bool
	inbound int
	streams map[*stream]struct{}
	work    sync.WaitGroup // the two goroutines, dials in flight, and streams that memberlist still holds
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func openTransport(ctx context.Context, cfg Config, addr netip.AddrPort) (*transport, error) {
	packets := cfg.Packets
	if packets == nil {
		var err error
		if packets, err = new(net.ListenConfig).ListenPacket(ctx, "udp", cfg.Bind); err != nil {
			return nil, err
		}
	}
	t := &transport{
		addr: addr, packets: packets, listener: cfg.Listener, dial: cfg.Dial, log: cfg.Log,
		arrived: make(chan *memberlist.Packet), taken: make(chan net.Conn), streams: map[*stream]struct{}{},
	}
	t.life, t.end = context.WithCancel(context.WithoutCancel(ctx))
	t.work.Go(t.receive)
	t.work.Go(t.accept)
	return t, nil
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.arrived }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.taken }

func (t *transport) receive() {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := t.packets.ReadFrom(buf)
		if err != nil {
			if !t.goOn(err, "gossip socket: read") {
				return
			}
			continue
		}
		p := &memberlist.Packet{Buf: bytes.Clone(buf[:n]), From: from, Timestamp: time.Now()}
		select {
		case t.arrived <- p:
		case <-t.life.Done():
			return
		}
	}
}

func (t *transport) accept() {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			if !t.goOn(err, "gossip stream: accept") {
				return
			}
			continue
		}
		s, err := t.track(c, true)
		if err != nil {
			t.log.Debug("gossip stream refused", "from", c.RemoteAddr(), "err", err)
			continue
		}
		select {
		case t.taken <- s:
		case <-t.life.Done():
			_ = s.Close()
			return
		}
	}
}

// goOn tells whether reading may go on after an error, a little later.
func (t *transport) goOn(err error, what string) bool {
	if t.life.Err() != nil {
		return false
	}
	if errors.Is(err, net.ErrClosed) {
		// Somebody else closed it, as when the node's listener ends before its users.
		t.log.Warn("gossip lost its socket", "what", what, "err", err)
		return false
	}
	t.log.Debug("gossip socket", "what", what, "err", err)
	select {
	case <-time.After(backoff):
		return true
	case <-t.life.Done():
		return false
	}
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. The socket's errors go out as they are:
// memberlist looks at their type to tell an unreachable peer from trouble of its own.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.packets.WriteTo(b, net.UDPAddrFromAddrPort(to))
	if err != nil && t.life.Err() != nil {
		err = net.ErrClosed // no fault of the peer's
	}
	return time.Now(), err
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, net.ErrClosed
	}
	t.work.Add(1)
	t.mu.Unlock()
	defer t.work.Done()

	ctx, cancel := context.WithTimeout(t.life, min(timeout, dialTimeout))
	defer cancel()
	c, err := t.dial(ctx, a.Addr)
	if err != nil {
		return nil, err
	}
	// memberlist writes its label before it sets a deadline.
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t.track(c, false)
}

// Shutdown implements memberlist.Transport. It aborts every stream and returns when memberlist has
// let go of them, which its goroutines do at once.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	t.closed = true
	t.end()
	for s := range t.streams {
		_ = s.Conn.Close()
	}
	t.mu.Unlock()
	err := errors.Join(t.listener.Close(), t.packets.Close())
	t.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

var errTooMany = errors.New("too many gossip streams at once")

// track remembers a stream until memberlist closes it. The stream is closed when there is an error.
func (t *transport) track(c net.Conn, inbound bool) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	if inbound {
		if t.inbound >= maxInbound {
			return nil, errors.Join(errTooMany, c.Close())
		}
		t.inbound++
	}
	s := &stream{Conn: c, t: t, inbound: inbound}
	t.streams[s] = struct{}{}
	t.work.Add(1)
	return s, nil
}

type stream struct {
	net.Conn
	t       *transport
	inbound bool
	once    sync.Once
}

// Write closes the stream after an error: memberlist forgets one whose label could not be written.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if err != nil {
		_ = s.Close()
	}
	return n, err
}

// Close implements net.Conn.
func (s *stream) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		s.t.mu.Lock()
		defer s.t.mu.Unlock()
		delete(s.t.streams, s)
		if s.inbound {
			s.t.inbound--
		}
		s.t.work.Done()
	})
	return err
}
