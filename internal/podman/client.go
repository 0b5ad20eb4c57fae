package podman

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	prefix = "/v4.0.0/libpod"
	// heavyCalls bounds the calls that make Podman fork, sync or unmount at one time: more than
	// four at once are slower, not faster (measured on 4.3 and 5.4).
	heavyCalls = 4
	// maxBody bounds what is read of one answer; a list of some thousand containers is a few MB.
	maxBody = 64 << 20
)

// Config of a Client.
type Config struct {
	// Socket of a libpod service that somebody else runs. Empty: the machine's own socket when a service
	// answers there, else a service this client starts on demand in RunDir.
	Socket string
	// RunDir is where the socket of a service of our own goes.
	RunDir string
	// Binary is the podman command for a service of our own; empty: "podman" from PATH.
	Binary string
	// Idle is how long a service of our own stays without a call; 0: 15 s.
	Idle time.Duration
	Log  *slog.Logger
}

// Client speaks to one libpod service. It is safe for concurrent use.
type Client struct {
	log   *slog.Logger
	http  *http.Client
	dial  func(ctx context.Context) (net.Conn, error)
	svc   *Service
	slots chan struct{}
}

// New makes a client; it does no I/O.
func New(cfg Config) *Client {
	if cfg.Socket != "" {
		dial := func(ctx context.Context) (net.Conn, error) { return dialSocket(ctx, cfg.Socket) }
		return newClient(dial, cfg.Log)
	}
	return NewWithService(NewService(ServiceConfig{
		Default: DefaultSocket(), Socket: filepath.Join(cfg.RunDir, "podman.sock"),
		Binary: cfg.Binary, Idle: cfg.Idle, Log: cfg.Log,
	}), cfg.Log)
}

// NewWithService makes a client of a service that is started on demand, and that Close ends.
func NewWithService(s *Service, log *slog.Logger) *Client {
	c := newClient(s.Dial, log)
	c.svc = s
	return c
}

func newClient(dial func(ctx context.Context) (net.Conn, error), log *slog.Logger) *Client {
	return &Client{
		log: log, dial: dial, slots: make(chan struct{}, heavyCalls),
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			// One connection per call: a unix socket costs nothing, and no call can be sent on a
			// connection that an idle service is just closing.
			DisableKeepAlives:  true,
			DisableCompression: true,
		}},
	}
}

// Close ends a service that this client started; containers keep running.
func (c *Client) Close() error {
	if c.svc == nil {
		return nil
	}
	return c.svc.Close()
}

// DefaultSocket is where the distribution's own libpod service listens for this user.
func DefaultSocket() string {
	if os.Getuid() == 0 {
		return "/run/podman/podman.sock"
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = fmt.Sprintf("/run/user/%d", os.Getuid())
	}
	return filepath.Join(dir, "podman", "podman.sock")
}

func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		return conn, nil
	}
	return nil, explainDial(path, err)
}

// explainDial says in one line what is wrong with a socket and what to do.
func explainDial(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: no permission to use the podman socket %s as uid %d%s: run as its owner, or give the socket of this user's own podman (systemctl --user start podman.socket)",
			ErrUnavailable, path, os.Getuid(), modeOf(path))
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: there is no podman socket at %s: start it (systemctl start podman.socket) or leave the setting out, so that the agent runs its own: %w",
			ErrUnavailable, path, os.ErrNotExist)
	}
	return fmt.Errorf("%w: connect to podman socket %s: %w", ErrUnavailable, path, err)
}

func modeOf(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return " (" + fi.Mode().String() + ")"
}

// apiError is what libpod answers; it unwraps to one of the package's errors where that is known.
type apiError struct {
	status  int
	message string
	kind    error
}

func (e *apiError) Error() string {
	if e.message == "" {
		return fmt.Sprintf("podman answered %d %s", e.status, http.StatusText(e.status))
	}
	return e.message
}

func (e *apiError) Unwrap() error { return e.kind }

// kindOf names the errors that libpod answers as 500.
func kindOf(status int, msg string) error {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(msg, p) {
				return true
			}
		}
		return false
	}
	switch {
	case status == http.StatusNotFound,
		has("image not known", "no such container", "no such pod", "no such exec session", "no such image", "container not known"):
		return ErrNotFound
	case status == http.StatusConflict,
		has("already in use", "already exists", "can only kill running containers", "container state improper",
			"image in use", "image is in use", "has dependent containers", "is in use by"):
		return ErrConflict
	}
	return nil
}

func decodeError(status int, body []byte) error {
	var e struct {
		Cause    string `json:"cause"`
		Message  string `json:"message"`
		Response int    `json:"response"`
	}
	msg := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &e) == nil && (e.Message != "" || e.Cause != "") {
		msg = e.Message
		if msg == "" {
			msg = e.Cause
		}
	}
	return &apiError{status: status, message: msg, kind: kindOf(status, msg+" "+e.Cause)}
}

// request is one call; body may be nil, an io.Reader or a value to send as JSON.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         any
	heavy        bool
}

// do sends r and returns the answer of a 2xx or 304 status, body open.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	begun := time.Now()
	resp, err := c.send(ctx, r)
	if unread(err) && ctx.Err() == nil {
		if _, once := r.body.(io.Reader); !once {
			resp, err = c.send(ctx, r)
		}
	}
	if err != nil {
		return nil, callError(ctx, err)
	}
	c.log.Debug("podman call", "method", r.method, "path", r.path, "status", resp.StatusCode, "took", time.Since(begun))
	if resp.StatusCode < 300 || resp.StatusCode == http.StatusNotModified {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, callError(ctx, err)
	}
	return nil, decodeError(resp.StatusCode, b)
}

func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := r.build(ctx)
	if err != nil {
		return nil, err
	}
	return c.http.Do(req)
}

// unread tells that a service left, as it does when idle, just after it had let us connect: the kernel says "reset" or
// "broken pipe" only when nobody read what was sent. Such a call may be repeated whatever it does.
func unread(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (r request) build(ctx context.Context) (*http.Request, error) {
	var body io.Reader
	header := r.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	switch b := r.body.(type) {
	case nil:
	case io.Reader:
		body = b
	default:
		buf, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", r.method, r.path, err)
		}
		body = bytes.NewReader(buf)
		header.Set("Content-Type", "application/json")
	}
	u := url.URL{Scheme: "http", Host: "d", Path: prefix + r.path, RawQuery: r.query.Encode()}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	req.Header = header
	return req, nil
}

// callError tells a service that went away from a caller that gave up.
func callError(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the meaningless http://d/ address
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrUnavailable):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it closed the connection before it answered", ErrUnavailable)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// call sends r and decodes the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	if r.heavy {
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxBody)
	if out == nil || resp.StatusCode == http.StatusNotModified {
		_, err = io.Copy(io.Discard, body)
	} else {
		err = json.NewDecoder(body).Decode(out)
	}
	if err != nil {
		var syntax *json.SyntaxError
		var typ *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &typ) {
			return fmt.Errorf("decode answer of %s %s: %w", r.method, r.path, err)
		}
		return callError(ctx, err)
	}
	return nil
}
