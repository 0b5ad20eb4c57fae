package stream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var errSoon = errors.New("stream: not written yet")

// Handler serves the kubelet API. It is an http.Handler; Close ends all sessions and waits for its goroutines.
type Handler struct{ cfg Config }

// New returns a Handler.
func New(cfg Config) *Handler { return &Handler{cfg: cfg} }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {}

// Close ends all sessions (exec, attach, port-forward, followed logs) and waits for them.
func (h *Handler) Close() error { return nil }

// LogTarget returns the container ID whose log is meant, by upstream's rules and with its error texts
// (`container "c" in pod "p" is waiting to start: ContainerCreating`).
func LogTarget(pod *corev1.Pod, container string, previous bool) (containerID string, err error) {
	return "", errSoon
}

// LogOptions choose what ReadLog writes.
type LogOptions struct {
	Follow     bool
	Timestamps bool
	Since      time.Time // zero: from the beginning
	Tail       int64     // lines; negative: all
	Limit      int64     // bytes; 0: no limit
	Stdout     bool
	Stderr     bool
}

// ReadLog copies a container's log, rotated files included, to w by the options until its end, or with
// Follow until the container has ended or ctx does. w is flushed whenever the reader waits, if it can be.
func (h *Handler) ReadLog(ctx context.Context, l Log, o LogOptions, w io.Writer) error {
	return errSoon
}
