package apiserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// fakeAgent speaks enough of the kubelet's API for a log and an echoing exec.
type fakeAgent struct {
	server *httptest.Server
	mu     sync.Mutex
	dialed map[string]int // node -> connections
}

func newFakeAgent(t *testing.T) *fakeAgent {
	t.Helper()
	m := http.NewServeMux()
	m.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	m.HandleFunc("/containerLogs/{ns}/{pod}/{c}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "log of %s/%s/%s\n", r.PathValue("ns"), r.PathValue("pod"), r.PathValue("c"))
	})
	m.HandleFunc("/exec/{ns}/{pod}/{c}", func(w http.ResponseWriter, r *http.Request) {
		o, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeExec(w, r, echo{}, r.PathValue("pod"), "", r.PathValue("c"), r.URL.Query()["command"], o,
			time.Minute, time.Minute, remotecommand.SupportedStreamingProtocols)
	})
	a := &fakeAgent{server: httptest.NewServer(m), dialed: map[string]int{}}
	t.Cleanup(a.server.Close)
	return a
}

// DialNode implements NodeDialer.
func (a *fakeAgent) DialNode(ctx context.Context, node string) (net.Conn, error) {
	a.mu.Lock()
	a.dialed[node]++
	a.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, "tcp", a.server.Listener.Addr().String())
}

type echo struct{}

// ExecInContainer implements remotecommand.Executor.
func (echo) ExecInContainer(_ context.Context, _, _, _ string, _ []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	_, err := io.Copy(out, in)
	return err
}
