package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

const (
	idleTimeout     = 4 * time.Hour // of a session in which nothing moves; the kubelet's default
	creationTimeout = remotecommand.DefaultStreamCreationTimeout
	// statusGrace is how long a session that must end may take to tell its client so: clients take a
	// connection that just breaks for success.
	statusGrace = time.Second
)

// Handler serves the kubelet API. It is an http.Handler; Close ends all sessions and waits for its goroutines.
type Handler struct {
	cfg   Config
	mux   *http.ServeMux
	files *fileWatch

	done   chan struct{} // closed by Close
	mu     sync.Mutex
	closed bool
	active sync.WaitGroup
}

// New returns a Handler.
func New(cfg Config) *Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{cfg: cfg, mux: http.NewServeMux(), files: &fileWatch{log: cfg.Log}, done: make(chan struct{})}
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	h.mux.HandleFunc("GET /pods", h.servePods)
	h.mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", h.serveLogs)
	for _, uid := range []string{"", "/{uid}"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			h.mux.HandleFunc(method+" /exec/{namespace}/{pod}"+uid+"/{container}", h.serveExec)
			h.mux.HandleFunc(method+" /attach/{namespace}/{pod}"+uid+"/{container}", h.serveAttach)
			h.mux.HandleFunc(method+" /portForward/{namespace}/{pod}"+uid, h.servePortForward)
		}
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.enter() {
		http.Error(w, errClosed.Error(), http.StatusServiceUnavailable)
		return
	}
	defer h.active.Done()
	// A hijacked connection outlives its server's Shutdown: Close must end what runs on it.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-h.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	h.mux.ServeHTTP(w, r.WithContext(ctx))
}

var errClosed = errors.New("the node is shutting down")

// enter counts something that Close waits for; false after Close.
func (h *Handler) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.active.Add(1)
	}
	return !h.closed
}

// Close ends all sessions (exec, attach, port-forward, followed logs) and waits for them.
func (h *Handler) Close() error {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
	h.mu.Unlock()
	h.active.Wait()
	h.files.wait()
	return nil
}

// hold makes the end of the request's context the end of its connection, after grace.
func hold(w http.ResponseWriter, r *http.Request, grace time.Duration) (held http.ResponseWriter, done func()) {
	hw := &hijackable{ResponseWriter: w}
	stop := context.AfterFunc(r.Context(), func() { time.AfterFunc(grace, hw.close) })
	return hw, func() { stop() }
}

// hijackable closes a connection that was taken over when its session must end: until then neither SPDY nor
// WebSocket sessions look at a context. It has no Unwrap, so that nobody takes the connection past it.
type hijackable struct {
	http.ResponseWriter

	mu    sync.Mutex
	conn  net.Conn
	ended bool
}

// Hijack implements http.Hijacker.
func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	h.conn = &onceConn{Conn: conn}
	if h.ended {
		h.conn.Close()
	}
	return h.conn, rw, nil
}

// onceConn may be closed twice: the SPDY library waits a second for somebody to ask about a failed Close.
type onceConn struct {
	net.Conn
	once sync.Once
	err  error
}

// Close implements net.Conn.
func (c *onceConn) Close() error {
	c.once.Do(func() { c.err = c.Conn.Close() })
	return c.err
}

func (h *hijackable) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.conn != nil {
		h.conn.Close()
	}
}

func (h *Handler) servePods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{}
	list.APIVersion, list.Kind = "v1", "PodList"
	for _, p := range h.cfg.Backend.Pods() {
		list.Items = append(list.Items, *p)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&list); err != nil {
		h.cfg.Log.Debug("pods not sent", "err", err)
	}
}

// pod finds the pod of a request, or answers.
func (h *Handler) pod(w http.ResponseWriter, r *http.Request) (*corev1.Pod, bool) {
	pod, ok := h.cfg.Backend.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if !ok {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return nil, false
	}
	if uid := r.PathValue("uid"); uid != "" && uid != string(pod.UID) {
		http.Error(w, "pod not found", http.StatusNotFound)
		return nil, false
	}
	return pod, true
}

// container finds the container of a request, or answers.
func (h *Handler) container(w http.ResponseWriter, r *http.Request) (Container, bool) {
	pod, ok := h.pod(w, r)
	if !ok {
		return Container{}, false
	}
	c := Container{Pod: pod, Name: r.PathValue("container")}
	if !hasContainer(pod, c.Name) {
		http.Error(w, fmt.Sprintf("container not found (%q)", c.Name), http.StatusNotFound)
		return Container{}, false
	}
	return c, true
}

func hasContainer(pod *corev1.Pod, name string) bool {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return true
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}

func (h *Handler) serveExec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, ok := h.container(w, r)
	if !ok {
		return
	}
	w, done := hold(w, r, statusGrace)
	defer done()
	s := &session{backend: h.cfg.Backend, container: c}
	remotecommand.ServeExec(w, r, s, c.Pod.Name, string(c.Pod.UID), c.Name, r.URL.Query()["command"], options,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (h *Handler) serveAttach(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, ok := h.container(w, r)
	if !ok {
		return
	}
	w, done := hold(w, r, statusGrace)
	defer done()
	s := &session{backend: h.cfg.Backend, container: c}
	remotecommand.ServeAttach(w, r, s, c.Pod.Name, string(c.Pod.UID), c.Name, options,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (h *Handler) servePortForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod, ok := h.pod(w, r)
	if !ok {
		return
	}
	w, done := hold(w, r, 0)
	defer done()
	f := &forwarder{ended: r.Context().Done(), handler: h, pod: pod}
	portforward.ServePortForward(w, r, f, pod.Name, string(pod.UID), options,
		idleTimeout, creationTimeout, portforward.SupportedProtocols)
}

// fail answers with an error of the backend.
func fail(w http.ResponseWriter, err error, otherwise int) {
	var s *StatusError
	if errors.As(err, &s) {
		otherwise = s.Code
	}
	http.Error(w, err.Error(), otherwise)
}
