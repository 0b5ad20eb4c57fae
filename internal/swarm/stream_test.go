package swarm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// wireless is a transport without network, so that time can be virtual.
type wireless func(*http.Request) *http.Response

func (f wireless) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// streaming answers with what write writes, until the client goes away.
func streaming(write func(w io.Writer)) *Client {
	return NewClient(&http.Client{Transport: wireless(func(r *http.Request) *http.Response {
		pr, pw := io.Pipe()
		context.AfterFunc(r.Context(), func() { pw.CloseWithError(context.Cause(r.Context())) })
		go func() { write(pw); pw.Close() }()
		return &http.Response{StatusCode: http.StatusOK, Body: pr}
	})}, "https://a:6443")
}

func TestStreamShowsThatItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		stream(w, func(say Progress) (any, error) {
			<-time.After(7 * time.Second)
			say("half way")
			<-time.After(3 * time.Second)
			return Backup{ID: "b1"}, nil
		})
		want := "{}\n{}\n{\"message\":\"half way\"}\n{}\n{\"result\":{\"id\":\"b1\","
		if !strings.HasPrefix(w.Body.String(), want) || w.Header().Get("Content-Type") != jsonLines {
			t.Errorf("have %s", w.Body)
		}
	})
}

func TestLateProgressIsDropped(t *testing.T) {
	w := httptest.NewRecorder()
	var late Progress
	stream(w, func(say Progress) (any, error) { late = say; return None{}, nil })
	before := w.Body.String()
	late("after the end")
	if w.Body.String() != before || before != "{\"result\":{}}\n" {
		t.Errorf("have %q, before %q", w.Body, before)
	}
}

// deaf is a client that went away.
type deaf struct{ *httptest.ResponseRecorder }

func (deaf) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestOperationOutlivesItsListener(t *testing.T) {
	ended := false
	stream(deaf{httptest.NewRecorder()}, func(say Progress) (any, error) {
		say("one")
		say("two")
		ended = true
		return None{}, nil
	})
	if !ended {
		t.Error("a client that went away stopped the operation")
	}
}

func TestClientGivesUpASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, said := time.Now(), []string{}
		c := streaming(func(w io.Writer) {
			for range 10 { // signs of life keep it
				<-time.After(10 * time.Second)
				_, _ = io.WriteString(w, "{}\n")
			}
			_, _ = io.WriteString(w, "{\"message\":\"soon\"}\n")
			<-time.After(time.Hour)
		})
		err := c.RotateCA(t.Context(), func(s string) { said = append(said, s) })
		const want = "https://a:6443: nothing was heard for 15s; the operation may still be going on: look at its status before trying again"
		if err == nil || err.Error() != want || time.Since(start) != 115*time.Second || len(said) != 1 {
			t.Errorf("after %s, having said %q: %v", time.Since(start), said, err)
		}
		<-time.After(time.Hour) // the fake server's goroutine
	})
}

func TestClientSeesACutStream(t *testing.T) {
	c := streaming(func(w io.Writer) { _, _ = io.WriteString(w, "{\"message\":\"begun\"}\n") })
	err := c.RotateCA(t.Context(), func(string) {})
	if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "may still be going on") {
		t.Errorf("have %v", err)
	}
}

func FuzzFollow(f *testing.F) {
	for _, seed := range []string{"{}\n{\"message\":\"x\"}\n{\"result\":{}}\n", "{\"error\":\"x\",\"code\":409}", "{\"result\":3}", "null"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		c := streaming(func(w io.Writer) { _, _ = io.WriteString(w, answer) })
		if _, err := c.Drill(t.Context(), DrillRequest{}, func(string) {}); err != nil && err.Error() == "" {
			t.Errorf("%q: an error without words", answer)
		}
	})
}
