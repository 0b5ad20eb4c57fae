package wire

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// lostProbes is how many questions about a closed window may stay unanswered.
const lostProbes = 3

// keepAlive notices a dead peer on an idle connection: the kernel asks after two seconds, three times.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}
}

// listenForSilence notices a dead peer on a connection that has something under way, where keepalive does
// nothing and the kernel would try for a quarter of an hour. TCP_USER_TIMEOUT is made for that but measures
// progress, not life: it also kills a connection whose peer has not read for five seconds (kubectl logs -f in a
// terminal that was paused).
func (w *Wire) listenForSilence() {
	tick := time.NewTicker(w.wait.check)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			return
		}
		w.mu.Lock()
		conns := make([]*Conn, 0, len(w.conns))
		for c := range w.conns {
			conns = append(conns, c)
		}
		w.mu.Unlock()
		for _, c := range conns {
			if info := tcpInfo(c.raw); info != nil && silent(info, w.wait.silence) {
				c.abort()
			}
		}
	}
}

// silent tells whether the peer should have answered long ago. On a connection that lives, keepalive makes
// that every few seconds.
func silent(i *unix.TCPInfo, limit time.Duration) bool {
	waits := i.Unacked > 0 || i.Probes >= lostProbes
	return waits && time.Duration(i.Last_ack_recv)*time.Millisecond > limit
}

// hungUp tells whether the peer has closed its end, even when nobody has read that far yet.
func hungUp(c *net.TCPConn) bool {
	info := tcpInfo(c)
	return info == nil || info.State != unix.BPF_TCP_ESTABLISHED
}

// tcpInfo asks the kernel about a connection; nil when it is closed.
func tcpInfo(c *net.TCPConn) *unix.TCPInfo {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var info *unix.TCPInfo
	if raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}) != nil || err != nil {
		return nil
	}
	return info
}
