package wire

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
	OpStart   = "start"   // bring the network up and adopt what is there; first request of all
	OpAdd     = "add"     // attach a pod
	OpRemove  = "remove"  // detach a pod
	OpList    = "list"    // a page of attached pods
	OpSocket  = "socket"  // a socket of the pod network, or of a pod
	OpDestroy = "destroy" // remove every trace, instead of start
)

// maxFrame bounds one message; socket buffers hold three of them even where they are smallest.
const maxFrame = 60 << 10

// ListPage is the number of pods in one reply: 256 ids and addresses stay well below maxFrame.
const ListPage = 256

// Request is one message to the helper. Seq comes back in its reply.
type Request struct {
	Seq     uint64 `json:"seq"`
	Op      string `json:"op"`
	ID      string `json:"id,omitempty"`      // add, remove; socket: the pod it belongs to
	Network string `json:"network,omitempty"` // socket: tcp4, tcp6, udp4, udp6
	After   string `json:"after,omitempty"`   // list: ids greater than this
	Setup   *Setup `json:"setup,omitempty"`   // start, destroy
}

// Reply is one message from the helper. Seq zero carries a log line instead of an answer.
type Reply struct {
	Seq  uint64   `json:"seq,omitempty"`
	Code string   `json:"code,omitempty"` // names a sentinel error
	Err  string   `json:"err,omitempty"`
	Pods []PodRef `json:"pods,omitempty"`
	More bool     `json:"more,omitempty"` // list: there are further pages
	// start: what pods are given, by sysctl name
	Sysctls map[string]string `json:"sysctls,omitempty"`
	Log     *LogLine          `json:"log,omitempty"`
}

// PodRef is a pod and its address.
type PodRef struct {
	ID string     `json:"id"`
	IP netip.Addr `json:"ip"`
}

// LogLine is what the helper has to say to the agent's log.
type LogLine struct {
	Level slog.Level `json:"level"`
	Text  string     `json:"text"`
	Err   string     `json:"err,omitempty"`
}

// DecodeRequest reads and checks a message of the agent.
func DecodeRequest(b []byte) (Request, error) {
	var r Request
	if err := json.Unmarshal(b, &r); err != nil {
		return Request{}, fmt.Errorf("decode request: %w", err)
	}
	if r.Seq == 0 {
		return Request{}, errors.New("decode request: no sequence number")
	}
	var err error
	switch r.Op {
	case OpStart, OpDestroy:
		if r.Setup == nil {
			return Request{}, fmt.Errorf("decode request: %s without setup", r.Op)
		}
		err = r.Setup.Validate()
	case OpAdd, OpRemove:
		err = CheckID(r.ID)
	case OpSocket:
		if _, _, err = SocketKind(r.Network); err == nil && r.ID != "" {
			err = CheckID(r.ID)
		}
	case OpList:
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	if err != nil {
		return Request{}, fmt.Errorf("decode request: %w", err)
	}
	return r, nil
}

// DecodeReply reads and checks a message of the helper.
func DecodeReply(b []byte) (Reply, error) {
	var r Reply
	if err := json.Unmarshal(b, &r); err != nil {
		return Reply{}, fmt.Errorf("decode reply: %w", err)
	}
	for _, p := range r.Pods {
		if err := CheckID(p.ID); err != nil {
			return Reply{}, fmt.Errorf("decode reply: %w", err)
		}
		if !p.IP.Is4() {
			return Reply{}, fmt.Errorf("decode reply: pod %s has address %s", p.ID, p.IP)
		}
	}
	return r, nil
}

// Failure puts an error into words that AsError turns back into one.
func Failure(err error) Reply {
	r := Reply{Err: err.Error()}
	for code, sentinel := range map[string]error{"exhausted": ErrExhausted, "nopod": ErrNoPod} {
		if errors.Is(err, sentinel) {
			r.Code = code
		}
	}
	return r
}

// AsError is the error that Failure was made of, nil if there is none.
func (r Reply) AsError() error {
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

// SocketKind returns the numbers for tcp4, tcp6, udp4 and udp6.
func SocketKind(network string) (family, kind int, err error) {
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

// Frames is a connection of one message per packet; a message may carry one descriptor.
// Sends may come from many goroutines, receives from one.
type Frames struct {
	conn *net.UnixConn
	buf  []byte
	oob  []byte
}

// NewFrames speaks on a socket of type SOCK_SEQPACKET. The file stays the caller's.
func NewFrames(f *os.File) (*Frames, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s is not a unix socket", f.Name())
	}
	return &Frames{uc, make([]byte, maxFrame), make([]byte, unix.CmsgSpace(4*8))}, nil
}

// CloseWrite tells the other side that no more will come; it can still answer.
func (f *Frames) CloseWrite() error { return f.conn.CloseWrite() }

// Close ends the connection.
func (f *Frames) Close() error { return f.conn.Close() }

// Send writes v and passes fd along if it is not negative; fd stays the caller's.
func (f *Frames) Send(v any, fd int) error {
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

// Receive returns the next message, valid until the next call, and the descriptor that came with
// it or -1. The caller owns the descriptor. At the end it returns io.EOF.
func (f *Frames) Receive() ([]byte, int, error) {
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
		CloseFD(fd)
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
				CloseFD(got)
			}
		}
	}
	return fd, nil
}

// CloseFD closes a descriptor if it is not negative.
func CloseFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
