package stream

import (
	"context"
	"io"
	"log/slog"
	"net"

	corev1 "k8s.io/api/core/v1"
)

// Backend is the node behind the handler. The handler has checked that the pod is there (Pod) and that
// its spec has the container before it calls the others. A *StatusError chooses the HTTP status.
type Backend interface {
	// Pod returns a pod of this node by name; false when there is none.
	Pod(namespace, name string) (*corev1.Pod, bool)
	// Pods returns all pods of this node, with status.
	Pods() []*corev1.Pod
	// Exec runs a command and returns its exit code; err is for a command that could not be run.
	Exec(ctx context.Context, c Container, cmd []string, streams Streams) (exitCode int, err error)
	// Attach connects to the container's first process until it ends or the streams do.
	Attach(ctx context.Context, c Container, streams Streams) error
	// Dial connects to a port of the pod, on the pod's own 127.0.0.1.
	Dial(ctx context.Context, pod *corev1.Pod, port uint16) (net.Conn, error)
	// Log finds the log of a container: of its newest attempt, or of the one before that.
	// LogTarget derives container ID and upstream's error texts from the pod's status.
	Log(ctx context.Context, c Container, previous bool) (Log, error)
}

// Container names a container of a pod.
type Container struct {
	Pod  *corev1.Pod
	Name string
}

// Streams are the ends of an exec or attach session; those that were not asked for are nil.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	// Resize delivers terminal sizes; nil without TTY, closed when the client is gone.
	Resize <-chan Size
}

// Size is a terminal size in characters.
type Size struct{ Width, Height uint16 }

// Log is the log file of one container attempt, in the CRI format (Podman's k8s-file).
type Log struct {
	// Path of the current file; rotated ones beside it are Path.1 (newest), Path.2, ...
	Path string
	// Ended is closed when the container has ended and everything is in the file; nil: it has already.
	Ended <-chan struct{}
}

// StatusError is an error with an HTTP status; the body of the answer is Text.
type StatusError struct {
	Code int
	Text string
}

// Error implements error.
func (e *StatusError) Error() string { return e.Text }

// Config is what a Handler needs.
type Config struct {
	Backend Backend
	Log     *slog.Logger
}
