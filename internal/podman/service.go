package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	defaultIdle  = 15 * time.Second
	startTimeout = 30 * time.Second
	closeTimeout = 5 * time.Second
	startPoll    = 10 * time.Millisecond
)

// ServiceConfig of a Service.
type ServiceConfig struct {
	Default string        // a socket somebody else may serve; tried first, "" = none
	Socket  string        // ours
	Binary  string        // "" = "podman" from PATH
	Idle    time.Duration // without a call the service leaves; 0 = 15 s
	Log     *slog.Logger
}

// Service starts `podman system service` when it is needed and lets it leave when it is idle. The service runs in a
// session of its own: it outlives an agent that is killed, and containers outlive both.
type Service struct {
	cfg ServiceConfig

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// NewService does no I/O.
func NewService(cfg ServiceConfig) *Service {
	if cfg.Binary == "" {
		cfg.Binary = "podman"
	}
	if cfg.Idle <= 0 {
		cfg.Idle = defaultIdle
	}
	return &Service{cfg: cfg}
}

// Dial connects to the machine's own service, or to ours, which it starts when it is not there.
func (s *Service) Dial(ctx context.Context) (net.Conn, error) {
	if s.cfg.Default != "" {
		conn, err := dialSocket(ctx, s.cfg.Default)
		if err == nil || errors.Is(err, os.ErrPermission) || ctx.Err() != nil {
			return conn, err
		}
	}
	conn, err := dialSocket(ctx, s.cfg.Socket)
	if err == nil || !absent(err) {
		return conn, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if conn, err := dialSocket(ctx, s.cfg.Socket); err == nil || !absent(err) {
		return conn, err // another call has started it meanwhile
	}
	return s.start(ctx)
}

// absent tells that nobody listens at a socket.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// start runs the service and returns the first connection to it.
func (s *Service) start(ctx context.Context) (net.Conn, error) {
	bin, err := exec.LookPath(s.cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not installed: install Podman 4.3 or newer (Debian, Ubuntu: apt-get install podman; Fedora: dnf install podman)",
			ErrUnavailable, s.cfg.Binary)
	}
	if err := os.MkdirAll(filepath.Dir(s.cfg.Socket), 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := os.Remove(s.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: remove stale socket: %w", ErrUnavailable, err)
	}
	// A file, not a pipe: the service must not die of SIGPIPE when the agent is gone.
	out, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer out.Close()
	secs := strconv.Itoa(int(max(s.cfg.Idle/time.Second, 1)))
	// Not CommandContext: the service belongs to no single call.
	cmd := exec.Command(bin, "system", "service", "--time="+secs, "unix://"+s.cfg.Socket) //nolint:noctx // see above
	cmd.Env = append(os.Environ(), "PODMAN_IGNORE_CGROUPSV1_WARNING=1")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: start %s: %w", ErrUnavailable, bin, err)
	}
	done := make(chan struct{})
	s.cmd, s.done = cmd, done
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	s.cfg.Log.Debug("podman service started", "pid", cmd.Process.Pid, "socket", s.cfg.Socket)
	return s.await(ctx, done)
}

func (s *Service) await(ctx context.Context, done <-chan struct{}) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		conn, err := dialSocket(ctx, s.cfg.Socket)
		if err == nil || !absent(err) {
			return conn, err
		}
		select {
		case <-done:
			return nil, fmt.Errorf("%w: podman system service ended at once: %s", ErrUnavailable, s.lastWords())
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: podman system service did not answer: %w", ErrUnavailable, ctx.Err())
		case <-tick.C:
		}
	}
}

func (s *Service) logPath() string { return s.cfg.Socket + ".log" }

// lastWords is the end of what the service printed, in one line.
func (s *Service) lastWords() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return "no output"
	}
	const enough = 500
	b = bytes.TrimSpace(b)
	if len(b) > enough {
		b = b[len(b)-enough:]
	}
	return string(bytes.ReplaceAll(b, []byte("\n"), []byte("; ")))
}

// Running tells whether a service that this process started is still there, and its process ID.
func (s *Service) Running() (pid int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		return 0, false
	}
	select {
	case <-s.done:
		return 0, false
	default:
		return s.cmd.Process.Pid, true
	}
}

// Close asks a service that this process started to leave, and waits for it. Call it when no call is under way.
func (s *Service) Close() error {
	if _, ok := s.Running(); !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop podman service: %w", err)
	}
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-s.done:
		return nil
	case <-timeout.C:
		return fmt.Errorf("podman service (pid %d) is still busy; it leaves by itself when idle", s.cmd.Process.Pid)
	}
}
