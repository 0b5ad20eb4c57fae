package lead

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// server answers at once, "/wait" when its request's context ends, and counts.
type server struct{ asked int }

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked++
	if r.URL.Path == "/wait" {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	body, write := io.Pipe() // as a watch
	go func() {
		_, _ = io.WriteString(write, "first")
		<-r.Context().Done()
		_ = write.CloseWithError(context.Cause(r.Context()))
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
}

func TestRequestsEndWithTheOffice(t *testing.T) {
	office, end := context.WithCancel(t.Context())
	s := &server{}
	client, err := rest.HTTPClientFor(Bound(office, &rest.Config{Host: "http://swarm", Transport: s}))
	if err != nil {
		t.Fatal(err)
	}
	watch, err := client.Get("http://swarm/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(watch.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("in office: %q, %v", first, err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := client.Post("http://swarm/wait", "", strings.NewReader("a write")) //nolint:bodyclose // it fails
		waits <- err
	}()
	end()
	if err := <-waits; !errors.Is(err, ErrOver) {
		t.Errorf("a write that waits: %v", err)
	}
	if _, err := io.ReadAll(watch.Body); !errors.Is(err, ErrOver) {
		t.Errorf("a watch: %v", err)
	}
	asked := s.asked
	if _, err := client.Get("http://swarm/later"); !errors.Is(err, ErrOver) { //nolint:bodyclose // it fails
		t.Errorf("a later request: %v", err)
	}
	if s.asked != asked {
		t.Error("a later request has reached the server")
	}
}
