package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// session is one exec or attach request, as k8s.io/cri-streaming wants it.
type session struct {
	backend   Backend
	container Container
}

// ExecInContainer implements remotecommand.Executor. An exit code other than 0 becomes the error that
// carries it to the client.
func (s *session) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader,
	out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	ctx, cancel := context.WithCancel(ctx)
	streams, wait := newStreams(ctx, in, out, errOut, tty, resize)
	code, err := s.backend.Exec(ctx, s.container, cmd, streams)
	cancel()
	wait()
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit status %d", code), Code: code}
	}
	return nil
}

// AttachContainer implements remotecommand.Attacher.
func (s *session) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader,
	out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize,
) error {
	ctx, cancel := context.WithCancel(ctx)
	streams, wait := newStreams(ctx, in, out, errOut, tty, resize)
	err := s.backend.Attach(ctx, s.container, streams)
	cancel()
	wait()
	return err
}

// newStreams translates the terminal sizes until ctx ends; wait waits for that.
func newStreams(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize,
) (s Streams, wait func()) {
	s = Streams{TTY: tty}
	// An interface that holds a nil pointer is not nil.
	if in != nil {
		s.Stdin = in
	}
	if out != nil {
		s.Stdout = out
	}
	if errOut != nil {
		s.Stderr = errOut
	}
	var translating sync.WaitGroup
	if tty && resize != nil {
		sizes := make(chan Size)
		s.Resize = sizes
		translating.Go(func() {
			defer close(sizes)
			for {
				select {
				case <-ctx.Done():
					return
				case size, ok := <-resize:
					if !ok {
						return
					}
					select {
					case sizes <- Size{Width: size.Width, Height: size.Height}:
					case <-ctx.Done():
						return
					}
				}
			}
		})
	}
	return s, translating.Wait
}

// forwarder is one port-forward request, which may carry many connections.
type forwarder struct {
	ended   <-chan struct{} // the request is
	handler *Handler
	pod     *corev1.Pod
}

const resetDelay = 50 * time.Millisecond

// PortForward implements portforward.PortForwarder: it connects a stream with a port of the pod until the
// pod has no more to say. The context it is given never ends by itself.
func (f *forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	if !f.handler.enter() {
		return errClosed
	}
	defer f.handler.active.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-f.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := f.handler.cfg.Backend.Dial(ctx, f.pod, uint16(port))
	if err != nil {
		// The library resets the streams after it has sent the error. A reset that overtakes the reply to their
		// creation would be all that the user sees.
		select {
		case <-time.After(resetDelay):
		case <-ctx.Done():
		}
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()

	// This direction ends when the client closes or resets its side, at the latest with the session.
	f.handler.active.Add(1)
	go func() {
		defer f.handler.active.Done()
		_, err := io.Copy(conn, stream)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		if err != nil {
			_ = conn.Close() // half of a request is none: let the pod know
		}
	}()
	_, err = io.Copy(stream, conn)
	if errors.Is(err, net.ErrClosed) {
		return nil // by us: the session is over
	}
	return err
}
