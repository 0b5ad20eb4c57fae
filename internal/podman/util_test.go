package podman_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// lineWaiter collects output and tells when something wanted was in it.
type lineWaiter struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan struct{}
}

func (w *lineWaiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if w.want != "" && strings.Contains(w.buf.String(), w.want) {
		w.want = ""
		close(w.seen)
	}
	return len(p), nil
}

func (w *lineWaiter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// expect asks for something that is still to come.
func (w *lineWaiter) expect(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Reset()
	w.want, w.seen = s, make(chan struct{})
}

func (w *lineWaiter) await(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case <-w.seen:
	case err := <-done:
		t.Fatalf("ended early: %v\n%s", err, w.String())
	case <-time.After(10 * time.Second):
		t.Fatalf("not seen:\n%s", w.String())
	}
}
