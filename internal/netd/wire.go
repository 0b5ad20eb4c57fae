package netd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// What the agent may ask of the helper.
const (
	opStart   = "start"   // bring the network up and adopt what is there; first request of all
	opAdd     = "add"     // attach a pod
	opRemove  = "remove"  // detach a pod
	opList    = "list"    // a page of attached pods
	opSocket  = "socket"  // a socket of the pod network, or of a pod
	opDestroy = "destroy" // remove every trace, instead of start
)

// maxFrame bounds one message; socket buffers hold three of them even where they are smallest.
const maxFrame = 60 << 10

// listPage is the number of pods in one reply: 256 ids and addresses stay well below maxFrame.
const listPage = 256

// request is one message to the helper. Seq comes back in its reply.
type request struct {
	Seq     uint64 `json:"seq"`
	Op      string `json:"op"`
	ID      string `json:"id,omitempty"`      // add, remove; socket: the pod it belongs to
	Network string `json:"network,omitempty"` // socket: tcp4, tcp6, udp4, udp6
	After   string `json:"after,omitempty"`   // list: ids greater than this
	Setup   *setup `json:"setup,omitempty"`   // start, destroy
}

// reply is one message from the helper. Seq zero carries a log line instead of an answer.
type reply struct {
	Seq  uint64   `json:"seq,omitempty"`
	Code string   `json:"code,omitempty"` // names a sentinel error
	Err  string   `json:"err,omitempty"`
	Pods []podRef `json:"pods,omitempty"`
	More bool     `json:"more,omitempty"` // list: there are further pages
	// start: what pods are given, by sysctl name
	Sysctls map[string]string `json:"sysctls,omitempty"`
	Log     *logLine          `json:"log,omitempty"`
}

type podRef struct {
	ID string     `json:"id"`
	IP netip.Addr `json:"ip"`
}

type logLine struct {
	Level slog.Level `json:"level"`
	Text  string     `json:"text"`
	Err   string     `json:"err,omitempty"`
}

func decodeRequest(b []byte) (request, error) {
	var r request
	if err := json.Unmarshal(b, &r); err != nil {
		return request{}, fmt.Errorf("decode request: %w", err)
	}
	if r.Seq == 0 {
		return request{}, errors.New("decode request: no sequence number")
	}
	var err error
	switch r.Op {
	case opStart, opDestroy:
		if r.Setup == nil {
			return request{}, fmt.Errorf("decode request: %s without setup", r.Op)
		}
		err = r.Setup.validate()
	case opAdd, opRemove:
		err = checkID(r.ID)
	case opSocket:
		if _, _, err = socketKind(r.Network); err == nil && r.ID != "" {
			err = checkID(r.ID)
		}
	case opList:
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	if err != nil {
		return request{}, fmt.Errorf("decode request: %w", err)
	}
	return r, nil
}

func decodeReply(b []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(b, &r); err != nil {
		return reply{}, fmt.Errorf("decode reply: %w", err)
	}
	for _, p := range r.Pods {
		if err := checkID(p.ID); err != nil {
			return reply{}, fmt.Errorf("decode reply: %w", err)
		}
		if !p.IP.Is4() {
			return reply{}, fmt.Errorf("decode reply: pod %s has address %s", p.ID, p.IP)
		}
	}
	return r, nil
}

// failure puts an error into words that asError turns back into one.
func failure(err error) reply {
	r := reply{Err: err.Error()}
	for code, sentinel := range map[string]error{"exhausted": ErrExhausted, "nopod": ErrNoPod} {
		if errors.Is(err, sentinel) {
			r.Code = code
		}
	}
	return r
}

func (r reply) asError() error {
	switch {
	case r.Err == "":
		return nil
	case r.Code == "exhausted":
		return &remoteError{r.Err, ErrExhausted}
	case r.Code == "nopod":
		return &remoteError{r.Err, ErrNoPod}
	}
	return errors.New(r.Err)
}

type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

func socketKind(network string) (family, kind int, err error) {
	switch network {
	case "tcp4":
		return unix.AF_INET, unix.SOCK_STREAM, nil
	case "tcp6":
		return unix.AF_INET6, unix.SOCK_STREAM, nil
	case "udp4":
		return unix.AF_INET, unix.SOCK_DGRAM, nil
	case "udp6":
		return unix.AF_INET6, unix.SOCK_DGRAM, nil
	}
	return 0, 0, fmt.Errorf("network %q: want tcp4, tcp6, udp4 or udp6", network)
}

// frames is a connection of one message per packet; a message may carry one descriptor.
// Sends may come from many goroutines, receives from one.
type frames struct {
	conn *net.UnixConn
	buf  []byte
	oob  []byte
}

func newFrames(f *os.File) (*frames, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s is not a unix socket", f.Name())
	}
	return &frames{uc, make([]byte, maxFrame), make([]byte, unix.CmsgSpace(4*8))}, nil
}

// send writes v and passes fd along if it is not negative; fd stays the caller's.
func (f *frames) send(v any, fd int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return fmt.Errorf("message of %d bytes", len(b))
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	_, _, err = f.conn.WriteMsgUnix(b, oob, nil)
	return err
}

// receive returns the next message, valid until the next call, and the descriptor that came with
// it or -1. The caller owns the descriptor. At the end it returns io.EOF.
func (f *frames) receive() ([]byte, int, error) {
	n, on, flags, _, err := f.conn.ReadMsgUnix(f.buf, f.oob)
	if err != nil {
		return nil, -1, err
	}
	fd, err := oneRight(f.oob[:on])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("message cut short")
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		closeFD(fd)
		return nil, -1, err
	}
	return f.buf[:n], fd, nil
}

// oneRight returns the first descriptor of a control message and closes all others.
func oneRight(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	fd := -1
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, got := range fds {
			if fd < 0 {
				fd = got
			} else {
				closeFD(got)
			}
		}
	}
	return fd, nil
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
