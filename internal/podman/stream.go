package podman

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// exitPoll and exitWait bound how long the exit code of an exec may come after the end of its output.
const (
	exitPoll = 10 * time.Millisecond
	exitWait = 5 * time.Second
)

// Exec runs a command in a running container and returns its exit code; the error is about running it, not about the
// code. A container that does not run: ErrConflict. Stdin's end is passed on; when the command ends first, Exec
// returns though a Read of Stdin may still be blocked: close Stdin after. When ctx ends, so do the streams;
// the command itself is killed where this process may (rootless: only if it runs as the container's root).
func (c *Client) Exec(ctx context.Context, id string, cfg ExecConfig) (int, error) {
	session, err := c.createExec(ctx, id, cfg)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	start := map[string]any{"Detach": false, "Tty": cfg.TTY}
	if size, ok := firstSize(cfg.Resize); ok && cfg.TTY {
		start["h"], start["w"] = size.Height, size.Width
	}
	conn, err := c.hijack(ctx, "/exec/"+session+"/start", nil, start)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	s := streams{
		stdin: cfg.Stdin, stdout: cfg.Stdout, stderr: cfg.Stderr, tty: cfg.TTY, resize: cfg.Resize,
		resizePath: "/exec/" + session + "/resize",
	}
	if err := c.pump(ctx, conn, s); err != nil {
		if ctx.Err() != nil {
			c.killExec(context.WithoutCancel(ctx), session)
		}
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	code, err := c.execExit(ctx, session)
	reapExec(ctx, session)
	return code, err
}

func (c *Client) createExec(ctx context.Context, id string, cfg ExecConfig) (string, error) {
	req := map[string]any{
		"Cmd": cfg.Cmd, "Tty": cfg.TTY, "AttachStdin": cfg.Stdin != nil, "AttachStdout": true, "AttachStderr": true,
		// No key sequence may detach a Kubernetes client.
		"DetachKeys": "",
	}
	var out struct{ Id string }
	err := c.call(ctx, request{method: http.MethodPost, path: "/containers/" + id + "/exec", body: req}, &out)
	return out.Id, err
}

type execState struct {
	Running  bool
	ExitCode int
	Pid      int
}

func (c *Client) execInspect(ctx context.Context, session string) (execState, error) {
	var st execState
	err := c.call(ctx, request{method: http.MethodGet, path: "/exec/" + session + "/json"}, &st)
	return st, err
}

// execExit asks for the exit code; the session is marked ended a moment after its streams are.
func (c *Client) execExit(ctx context.Context, session string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, exitWait)
	defer cancel()
	for {
		st, err := c.execInspect(ctx, session)
		if err != nil {
			return 0, fmt.Errorf("exit code of exec: %w", err)
		}
		if !st.Running {
			return st.ExitCode, nil
		}
		pause(ctx, exitPoll)
	}
}

// Attach connects to the streams of a running container's first process until it ends or ctx does. No output of the
// past is repeated. The rules for Stdin are Exec's.
func (c *Client) Attach(ctx context.Context, id string, cfg AttachConfig) error {
	q := url.Values{
		"stream": {"true"}, "logs": {"false"}, "stdin": {strconv.FormatBool(cfg.Stdin != nil)},
		"stdout": {"true"}, "stderr": {"true"}, "detachKeys": {""},
	}
	// The body stays empty: Podman hands it to the container as input.
	conn, err := c.hijack(ctx, "/containers/"+id+"/attach", q, nil)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	s := streams{
		stdin: cfg.Stdin, stdout: cfg.Stdout, stderr: cfg.Stderr, tty: cfg.TTY, resize: cfg.Resize,
		resizePath: "/containers/" + id + "/resize",
	}
	if err := c.pump(ctx, conn, s); err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	return nil
}

func firstSize(ch <-chan Size) (Size, bool) {
	select {
	case s, ok := <-ch:
		return s, ok
	default:
		return Size{}, false
	}
}

// hijacked is a connection that has left HTTP; r holds what came with the answer's header.
type hijacked struct {
	net.Conn
	r *bufio.Reader
}

func (c *Client) hijack(ctx context.Context, path string, q url.Values, body any) (*hijacked, error) {
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"tcp"}}
	req, err := request{method: http.MethodPost, path: path, query: q, header: header, body: body}.build(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, callError(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	h, err := upgrade(conn, req)
	if err != nil {
		_ = conn.Close()
		var api *apiError
		if errors.As(err, &api) {
			return nil, err
		}
		return nil, callError(ctx, err)
	}
	return h, nil
}

func upgrade(conn net.Conn, req *http.Request) (*hijacked, error) {
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req) //nolint:bodyclose // the connection is the body
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return nil, err
		}
		return nil, decodeError(resp.StatusCode, b)
	}
	return &hijacked{Conn: conn, r: r}, nil
}

type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	tty            bool
	resize         <-chan Size
	resizePath     string
}

// pump copies until the far end closes or ctx ends, and closes conn.
func (c *Client) pump(ctx context.Context, conn *hijacked, s streams) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	resized := make(chan struct{})
	rctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(resized)
		c.followSize(rctx, s)
	}()
	defer func() { cancel(); <-resized }()
	if s.stdin != nil {
		// Not waited for: a Read of somebody else's reader cannot be ended from here.
		go func() {
			_, _ = io.Copy(conn.Conn, s.stdin)
			if cw, ok := conn.Conn.(interface{ CloseWrite() error }); ok {
				_ = cw.CloseWrite()
			}
		}()
	}
	var err error
	if s.tty {
		_, err = io.Copy(orDiscard(s.stdout), conn.r)
	} else {
		err = demux(conn.r, s.stdout, s.stderr)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// followSize passes terminal sizes on. A session is resizable only from some moment after its start: what is refused
// is tried again a little later, unless a newer size comes first.
func (c *Client) followSize(ctx context.Context, s streams) {
	for s.tty && s.resize != nil {
		select {
		case size, ok := <-s.resize:
			if !ok {
				return
			}
			q := url.Values{"h": {strconv.Itoa(int(size.Height))}, "w": {strconv.Itoa(int(size.Width))}}
			for tries := 20; tries > 0 && ctx.Err() == nil; tries-- {
				if c.call(ctx, request{method: http.MethodPost, path: s.resizePath, query: q}, nil) == nil {
					break
				}
				pause(ctx, exitPoll)
			}
		case <-ctx.Done():
			return
		}
	}
}

// pause waits unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// maxFrame bounds one frame; Podman sends 8 KB at most.
const maxFrame = 16 << 20

// demux takes the frames [stream, 0, 0, 0, length big endian] apart until the end of r.
func demux(r io.Reader, stdout, stderr io.Writer) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read stream frame: %w", err)
		}
		n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		if n > maxFrame {
			return fmt.Errorf("stream frame of %d bytes", n)
		}
		var w io.Writer
		switch head[0] {
		case 0, 1:
			w = orDiscard(stdout)
		case 2:
			w = orDiscard(stderr)
		case 3: // libpod's own error, in the middle of the stream
			msg, err := io.ReadAll(io.LimitReader(r, n))
			if err != nil {
				return fmt.Errorf("read stream error: %w", err)
			}
			return &apiError{status: http.StatusOK, message: string(msg)}
		default:
			return fmt.Errorf("stream frame of unknown kind %d", head[0])
		}
		if _, err := io.CopyN(w, r, n); err != nil {
			return fmt.Errorf("copy stream: %w", err)
		}
	}
}

// killExec ends a command whose caller has gone. Podman has no call for it, but tells the process.
func (c *Client) killExec(ctx context.Context, session string) {
	ctx, cancel := context.WithTimeout(ctx, exitWait)
	defer cancel()
	st, err := c.execInspect(ctx, session)
	if err != nil {
		return
	}
	if st.Running { // else it ended just before its caller went
		if st.Pid <= 1 {
			return
		}
		if err := killProcess(st.Pid, unix.SIGKILL); err != nil {
			c.log.Debug("exec outlives its caller", "session", session, "pid", st.Pid, "err", err)
			return
		}
	}
	reapExec(ctx, session)
}
