package inproc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve returns a client of h and sends it one request.
func do(t *testing.T, ctx context.Context, body string, h http.HandlerFunc) (*http.Response, error) { //nolint:revive // t first reads better here
	t.Helper()
	tr := New()
	tr.Serve(h)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://x/a%2Fb?q=1", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("K", "V")
	return tr.RoundTrip(req)
}

func TestRoundTrip(t *testing.T) {
	resp, err := do(t, t.Context(), "hello", func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		w.Header().Set("Seen", r.Method+" "+r.RequestURI+" "+r.URL.Path+" "+r.Header.Get("K")+" "+string(data))
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("Late", "x")
		_, _ = io.WriteString(w, "bye")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || string(data) != "bye" || resp.StatusCode != http.StatusTeapot {
		t.Errorf("got %d %q, %v", resp.StatusCode, data, err)
	}
	if got := resp.Header.Get("Seen"); got != "POST /a%2Fb?q=1 /a/b V hello" {
		t.Errorf("handler saw %q", got)
	}
	if resp.Header.Get("Late") != "" {
		t.Error("a header set after the status was sent")
	}
}

type secretKey struct{}

// The values of the caller's context are another request's user and audit event.
func TestContextIsolated(t *testing.T) {
	ctx := context.WithValue(t.Context(), secretKey{}, "other user")
	resp, err := do(t, ctx, "", func(_ http.ResponseWriter, r *http.Request) {
		if v := r.Context().Value(secretKey{}); v != nil {
			t.Errorf("handler sees %v", v)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d for a handler that says nothing", resp.StatusCode)
	}
}

// A short response that nobody reads lets its handler end, as over a socket.
func TestUnreadResponse(t *testing.T) {
	ended := make(chan error, 1)
	resp, err := do(t, t.Context(), "", func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, strings.Repeat("x", pipeLimit/2))
		ended <- err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
}

func TestClientGoes(t *testing.T) {
	ended := make(chan error, 1)
	resp, err := do(t, t.Context(), "", func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, pipeLimit)); err != nil {
				<-r.Context().Done()
				ended <- err
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if err := <-ended; !errors.Is(err, errGone) {
		t.Errorf("handler got %v, want %v", err, errGone)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	_, err := do(t, ctx, "", func(_ http.ResponseWriter, r *http.Request) { //nolint:bodyclose // there is none
		cancel()
		<-r.Context().Done()
		close(ended)
	})
	<-ended
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWaitsForServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://x/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New().RoundTrip(req); !errors.Is(err, context.Canceled) { //nolint:bodyclose // there is none
		t.Errorf("got %v", err)
	}
}

func TestPanic(t *testing.T) {
	_, err := do(t, t.Context(), "", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }) //nolint:bodyclose // there is none
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("panic before the response: %v", err)
	}
	resp, err := do(t, t.Context(), "", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "part")
		panic(http.ErrAbortHandler)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if data, err := io.ReadAll(resp.Body); string(data) != "part" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("panic within the response: %q, %v", data, err)
	}
}

// TestPipe sends any bytes in any pieces, read in any pieces.
func TestPipe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 3*pipeKeep)).Draw(t, "pieces")
		size := rapid.IntRange(1, 2*pipeKeep).Draw(t, "read size")
		p := newPipe()
		go func() {
			for _, b := range pieces {
				if _, err := p.Write(b); err != nil {
					panic(err)
				}
			}
			p.finish(io.EOF)
		}()
		var got []byte
		buf := make([]byte, size)
		for {
			n, err := p.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF { //nolint:errorlint // io.Reader's contract
				break
			}
		}
		if want := bytes.Join(pieces, nil); !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	})
}
