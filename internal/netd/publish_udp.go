package netd

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// udpIdle ends a session: a client's port is forgotten when nothing came for so long.
	udpIdle = 90 * time.Second
	// udpSessions bounds what one published port can cost: a descriptor and a goroutine each.
	udpSessions = 2048
	udpPacket   = 65535
)

// udpProxy carries packets to the pod and its answers back, one socket in the pod network for each
// client, so that answers find the way to the right one.
type udpProxy struct {
	net    *Net
	target string
	outer  *net.UDPConn
	idle   time.Duration
	cancel context.CancelFunc
	work   sync.WaitGroup

	buffers sync.Pool // of *[udpPacket]byte

	mu       sync.Mutex
	sessions map[netip.AddrPort]*udpSession
}

type udpSession struct {
	client netip.AddrPort
	from   []byte // control message that makes answers come from the address that was asked
	inner  net.Conn
	last   atomic.Int64 // unix nanoseconds of the last packet, either way
}

func (n *Net) newUDPProxy(pc *net.UDPConn, target string) *udpProxy {
	return &udpProxy{
		net: n, target: target, outer: pc, idle: udpIdle,
		sessions: make(map[netip.AddrPort]*udpSession),
		buffers:  sync.Pool{New: func() any { return new([udpPacket]byte) }},
	}
}

// run starts the proxy, which ends with Close or ctx.
func (u *udpProxy) run(ctx context.Context) {
	ctx, u.cancel = context.WithCancel(ctx)
	u.work.Go(func() { u.receive(ctx) })
}

func (u *udpProxy) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sessions)
}

// Close ends all sessions and waits for that.
func (u *udpProxy) Close() error {
	u.cancel()
	err := u.outer.Close()
	u.mu.Lock()
	for _, s := range u.sessions {
		_ = s.inner.Close()
	}
	u.mu.Unlock()
	u.work.Wait()
	return err
}

func (u *udpProxy) receive(ctx context.Context) {
	packet, oob := make([]byte, udpPacket), make([]byte, 128)
	for {
		n, on, _, client, err := u.outer.ReadMsgUDPAddrPort(packet, oob)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an error of an earlier answer, as when the client's port closed
		}
		s, err := u.session(ctx, client, oob[:on])
		if err != nil {
			u.net.cfg.Log.Debug("packet for a published port dropped", "port", u.outer.LocalAddr().String(), "err", err)
			continue
		}
		_, _ = s.inner.Write(packet[:n]) // UDP: lost is lost
	}
}

// session finds or makes the client's session. It is not idle for now.
func (u *udpProxy) session(ctx context.Context, client netip.AddrPort, oob []byte) (*udpSession, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s, ok := u.sessions[client]; ok {
		s.last.Store(time.Now().UnixNano())
		return s, nil
	}
	if len(u.sessions) >= udpSessions {
		return nil, errors.New("too many clients")
	}
	inner, err := u.net.dialPublished(ctx, "udp", u.target)
	if err != nil {
		return nil, err
	}
	s := &udpSession{client: client, inner: inner, from: answerFrom(oob)}
	s.last.Store(time.Now().UnixNano())
	u.sessions[client] = s
	u.work.Go(func() { u.answer(ctx, s) })
	return s, nil
}

// answer carries a session's answers until it has been idle for long enough.
func (u *udpProxy) answer(ctx context.Context, s *udpSession) {
	defer func() { _ = s.inner.Close() }()
	raw, err := s.inner.(*net.UDPConn).SyscallConn()
	for err == nil && ctx.Err() == nil {
		until, over := u.expire(s)
		if over {
			return
		}
		_ = s.inner.SetReadDeadline(until)
		err = raw.Read(func(fd uintptr) bool { return u.forward(s, int(fd)) })
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	u.mu.Lock()
	delete(u.sessions, s.client)
	u.mu.Unlock()
}

// expire forgets a session that is idle, or tells until when it is not. It looks while no packet
// can find the session.
func (u *udpProxy) expire(s *udpSession) (until time.Time, over bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	until = time.Unix(0, s.last.Load()).Add(u.idle)
	if over = !time.Now().Before(until); over {
		delete(u.sessions, s.client)
	}
	return until, over
}

// forward passes one answer on, or returns false if there is none yet. Its buffer is borrowed: a
// waiting session holds none.
func (u *udpProxy) forward(s *udpSession, fd int) bool {
	buf := u.buffers.Get().(*[udpPacket]byte)
	defer u.buffers.Put(buf)
	n, err := unix.Read(fd, buf[:])
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	if err == nil { // another error: the pod does not listen now; it may later
		s.last.Store(time.Now().UnixNano())
		_, _, _ = u.outer.WriteMsgUDPAddrPort(buf[:n], s.from, s.client)
	}
	return true
}

// receiveDestination asks for the address each IPv4 packet was sent to.
func receiveDestination(network, _ string, c syscall.RawConn) error {
	if network != "udp4" {
		return nil
	}
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}

// answerFrom turns the control message of a packet into that of its answers.
func answerFrom(oob []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		if m.Header.Level != unix.IPPROTO_IP || m.Header.Type != unix.IP_PKTINFO || len(m.Data) < unix.SizeofInet4Pktinfo {
			continue
		}
		got := (*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0]))
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: got.Spec_dst})
	}
	return nil
}
