package podman

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers on a unix socket and returns its client.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return New(Config{Socket: path, Log: slog.New(slog.DiscardHandler)})
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestErrorsHaveAKind(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   error
		text   string
	}{
		{404, `{"cause":"no such container","message":"no container with name x","response":404}`, ErrNotFound, "no container with name x"},
		{500, `{"cause":"image not known","message":"x: image not known","response":500}`, ErrNotFound, "image not known"},
		{500, `{"cause":"that name is already in use","message":"name x is in use","response":500}`, ErrConflict, "name x is in use"},
		{500, `{"cause":"container state improper","message":"can only kill running containers","response":500}`, ErrConflict, "can only kill"},
		{409, `{"cause":"container state improper","message":"can only kill","response":409}`, ErrConflict, "can only kill"},
		{500, `{"cause":"disk","message":"no space left on device","response":500}`, nil, "no space left on device"},
		{502, "gateway", nil, "gateway"},
		{503, "", nil, "503 Service Unavailable"},
	} {
		c := serve(t, answer(tt.status, tt.body))
		_, err := c.Inspect(t.Context(), "x")
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%d %s: %v", tt.status, tt.body, err)
		}
		for _, kind := range []error{ErrNotFound, ErrConflict, ErrUnavailable} {
			if errors.Is(err, kind) != errors.Is(tt.want, kind) {
				t.Errorf("%d %s: is %v: %v", tt.status, tt.body, kind, errors.Is(err, kind))
			}
		}
	}
}

func TestNoService(t *testing.T) {
	dir := t.TempDir()
	c := New(Config{Socket: filepath.Join(dir, "none"), Log: slog.New(slog.DiscardHandler)})
	err := c.Ping(t.Context())
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "there is no podman socket at "+dir) {
		t.Errorf("absent: %v", err)
	}
	c = serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := c.Ping(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("broken off: %v", err)
	}
	if err := explainDial("/x", syscall.EACCES); !strings.Contains(err.Error(), "no permission to use the podman socket /x") {
		t.Errorf("unreadable: %v", err)
	}
}

// A power failure reads as "created" on Podman 4 and as "exited" on 5; times are as libpod prints them.
func TestStates(t *testing.T) {
	for _, tt := range []struct {
		state, started, finished string
		want                     ContainerState
		noEnd                    bool
	}{
		{"created", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", Created, true},
		{"created", "2026-11-23T21:15:50Z", "0001-01-01T00:00:00Z", Exited, true},
		{"exited", "2026-11-23T21:15:50Z", "0001-01-01T00:00:00Z", Exited, true},
		{"exited", "2026-11-23T21:15:50.2Z", "2026-11-23T21:15:50.1Z", Exited, false},
		{"stopped", "2026-11-23T21:15:50Z", "2026-11-23T21:15:51Z", Exited, false},
		{"running", "2026-11-23T21:15:50Z", "2026-11-23T21:15:40Z", Running, true},
		{"stopping", "2026-11-23T21:15:50Z", "0001-01-01T00:00:00Z", Stopping, true},
		{"what", "2026-11-23T21:15:50Z", "0001-01-01T00:00:00Z", Unknown, true},
	} {
		c := serve(t, answer(200, `{"Id":"x","State":{"Status":"`+tt.state+`","StartedAt":"`+tt.started+`","FinishedAt":"`+tt.finished+`"}}`))
		got, err := c.Inspect(t.Context(), "x")
		if err != nil || got.State != tt.want || got.Finished.IsZero() != tt.noEnd || !tt.noEnd && got.Finished.Before(got.Started) {
			t.Errorf("%+v: %+v, %v", tt, got, err)
		}
	}
}

func TestCanceledCall(t *testing.T) {
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

func TestHeavyCallsAreBounded(t *testing.T) {
	const calls = 3 * heavyCalls
	entered, leave := make(chan struct{}, calls), make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-leave
		w.WriteHeader(http.StatusNoContent)
	})
	done := make(chan error, calls)
	for range calls {
		go func() { done <- c.Start(t.Context(), "x") }()
	}
	for range heavyCalls {
		<-entered
	}
	select {
	case <-entered:
		t.Error("one more call than allowed is under way")
	case <-time.After(50 * time.Millisecond):
	}
	close(leave)
	for range calls {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestPullStream(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for _, tt := range []struct{ body, id, err string }{
		{`{"stream":"Trying"}` + "\n" + `{"images":["` + id + `"],"id":"` + id + `"}`, id, ""},
		{`{"stream":"Trying"}` + "\n" + `{"error":"manifest unknown"}`, "", "manifest unknown"},
		{`{"stream":"Trying"}`, "", "without a result"},
		{`{"stream":"Tr`, "", "broke off"},
		{``, "", "without a result"},
	} {
		got, err := readPull(strings.NewReader(tt.body))
		if got != tt.id || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v", tt.body, got, err)
		}
	}
}

func TestPullSendsFullNameAndCredentials(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		raw, err := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth"))
		var auth map[string]string
		if err != nil || json.Unmarshal(raw, &auth) != nil || auth["username"] != "u" || auth["password"] != "p" {
			t.Errorf("credentials %q, %v", raw, err)
		}
		if ref := r.URL.Query().Get("reference"); ref != "docker.io/library/nginx:latest" {
			t.Errorf("reference %q", ref)
		}
		answer(200, `{"id":"aa"}`)(w, r)
	})
	if id, err := c.Pull(t.Context(), "nginx", &Auth{Username: "u", Password: "p"}); err != nil || id != "aa" {
		t.Errorf("%q, %v", id, err)
	}
}

func TestNames(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0a", 32)
	for _, tt := range []struct {
		ref   string
		pull  string
		local []string
	}{
		{"nginx", "docker.io/library/nginx:latest", []string{"docker.io/library/nginx:latest", "localhost/nginx:latest"}},
		{"me/app:1", "docker.io/me/app:1", []string{"docker.io/me/app:1", "localhost/me/app:1"}},
		{"docker.io/nginx:1", "docker.io/library/nginx:1", []string{"docker.io/library/nginx:1"}},
		{"index.docker.io/me/app", "docker.io/me/app:latest", []string{"docker.io/me/app:latest"}},
		{"localhost/echo:1", "localhost/echo:1", []string{"localhost/echo:1"}},
		{"localhost:5000/echo", "localhost:5000/echo:latest", []string{"localhost:5000/echo:latest"}},
		{"reg.example.com/a/b_c:v1.2", "reg.example.com/a/b_c:v1.2", []string{"reg.example.com/a/b_c:v1.2"}},
		{"nginx:1" + digest, "docker.io/library/nginx" + digest, []string{"docker.io/library/nginx" + digest, "localhost/nginx" + digest}},
		{"x", "docker.io/library/x:latest", []string{"docker.io/library/x:latest", "localhost/x:latest"}},
	} {
		pull, err := PullName(tt.ref)
		if err != nil || pull != tt.pull {
			t.Errorf("PullName(%s) = %s, %v", tt.ref, pull, err)
		}
		local, err := LocalNames(tt.ref)
		if err != nil || !slices.Equal(local, tt.local) {
			t.Errorf("LocalNames(%s) = %s, %v", tt.ref, local, err)
		}
	}
	for _, ref := range []string{"", "Nginx", "nginx:", "a b", "nginx@sha256:12", "http://nginx", "nginx:a:b?", "../x", "-x", "x/"} {
		if name, err := PullName(ref); err == nil {
			t.Errorf("PullName(%q) = %s, want an error", ref, name)
		}
	}
	id := strings.Repeat("0a", 32)
	if names, err := LocalNames("sha256:" + id); err != nil || !slices.Equal(names, []string{"sha256:" + id}) {
		t.Errorf("an ID: %v, %v", names, err)
	}
}

func TestImageOfAnotherName(t *testing.T) {
	// Podman finds images by the beginning of an ID, too.
	c := serve(t, answer(200, `{"Id":"beef00","RepoTags":["docker.io/library/other:1"]}`))
	if img, err := c.Image(t.Context(), "beef"); !errors.Is(err, ErrNotFound) {
		t.Errorf("image %+v, %v", img, err)
	}
}

func frame(kind byte, s string) string {
	return string([]byte{kind, 0, 0, 0, 0, 0, byte(len(s) >> 8), byte(len(s))}) + s
}

func TestDemux(t *testing.T) {
	var out, errOut bytes.Buffer
	in := frame(1, "one") + frame(2, "two") + frame(1, "") + frame(1, "three")
	if err := demux(iotest.OneByteReader(strings.NewReader(in)), &out, &errOut); err != nil || out.String() != "onethree" || errOut.String() != "two" {
		t.Errorf("%q %q %v", &out, &errOut, err)
	}
	for _, tt := range []struct{ in, want string }{
		{frame(1, "abc")[:9], "EOF"},
		{frame(1, "abc")[:5], "EOF"},
		{frame(9, "abc"), "unknown kind"},
		{frame(3, "exec died"), "exec died"},
		{"\x01\x00\x00\x00\xff\xff\xff\xff", "bytes"},
	} {
		if err := demux(strings.NewReader(tt.in), nil, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.in, err)
		}
	}
}

func FuzzDemux(f *testing.F) {
	f.Add([]byte(frame(1, "one") + frame(2, "two")))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out, errOut bytes.Buffer
		_ = demux(bytes.NewReader(in), &out, &errOut)
		if out.Len()+errOut.Len() > len(in) {
			t.Errorf("%d bytes out of %d", out.Len()+errOut.Len(), len(in))
		}
	})
}

func FuzzHandleEvents(f *testing.F) {
	f.Add(make([]byte, unix.SizeofInotifyEvent))
	f.Fuzz(func(_ *testing.T, in []byte) { handleEvents(in, "/nonexistent", func(Exit) {}) })
}

func TestExitsDir(t *testing.T) {
	if got := exitsDir(false, "/run/containers/storage"); got != "/run/libpod/exits" {
		t.Error(got)
	}
	if got := exitsDir(true, "/run/user/1000/containers"); got != "/run/user/1000/libpod/tmp/exits" {
		t.Error(got)
	}
}
