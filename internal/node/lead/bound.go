package lead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"k8s.io/client-go/rest"
)

// ErrOver is the cause of requests that ended because this node leads no more.
var ErrOver = errors.New("this node leads no more")

// Bound returns a configuration for clients of a duty: their requests end when its office does, and later
// ones are refused, whatever context they were made with. Controllers make many with none, and a
// write waits for somebody to lead: without this a duty would end long after its office, and write
// while another node's does.
func Bound(office context.Context, c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Wrap(func(to http.RoundTripper) http.RoundTripper { return bound{office, to} })
	return c
}

type bound struct {
	office context.Context
	to     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.office.Err() != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, ErrOver)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	unbind := context.AfterFunc(b.office, func() { cancel(ErrOver) })
	end := func() { unbind(); cancel(nil) }
	resp, err := b.to.RoundTrip(r.WithContext(ctx))
	if err != nil {
		end()
		return nil, err
	}
	resp.Body = body{resp.Body, end}
	return resp, nil
}

// body ends its request's context when it is closed.
type body struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (b body) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}
