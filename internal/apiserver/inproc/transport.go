package inproc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"k8s.io/client-go/rest"
)

// errGone is what a handler's write returns once the client has let go of the response.
var errGone = errors.New("in-process client has gone")

// Transport is an http.RoundTripper that calls a handler. Requests made before Serve wait for it.
type Transport struct {
	ready   chan struct{}
	handler http.Handler // set before ready is closed
}

// New returns a transport without a handler yet.
func New() *Transport { return &Transport{ready: make(chan struct{})} }

// Serve names the handler; it must be called once.
func (t *Transport) Serve(h http.Handler) {
	t.handler = h
	close(t.ready)
}

// Wrap makes every client of c use t. It wraps rather than sets c.Transport, because client-go
// refuses a Transport beside the TLS options that some upstream users of c add.
func (t *Transport) Wrap(c *rest.Config) {
	c.Wrap(func(http.RoundTripper) http.RoundTripper { return t })
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) { // see below
	select {
	case <-t.ready:
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	}
	// The handler must not see values of the caller's context: when an admission plugin calls
	// back, they are the user and the audit event of another request.
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // see above
	stop := context.AfterFunc(req.Context(), cancel)
	p := newPipe()
	w := &writer{header: http.Header{}, pipe: p, done: make(chan struct{})}
	go func() {
		defer stop()
		defer cancel()
		w.run(t.handler, serverRequest(req).WithContext(ctx))
	}()
	select {
	case <-w.done:
	case <-req.Context().Done():
		p.abandon(errGone)
		return nil, context.Cause(req.Context())
	}
	if w.failure != nil {
		cancel()
		return nil, w.failure
	}
	return w.response(req, &body{pipe: p, cancel: cancel}), nil
}

// serverRequest turns a client's request into what a handler expects.
func serverRequest(req *http.Request) *http.Request {
	r := *req
	r.URL = &url.URL{Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery}
	r.RequestURI = req.URL.RequestURI()
	r.Header = req.Header.Clone()
	r.Host = req.URL.Host
	r.RemoteAddr = "127.0.0.1:0"
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	if r.Body == nil {
		r.Body = http.NoBody
	}
	return &r
}

// body ends the handler when the client closes the response.
type body struct {
	pipe   *pipe
	cancel context.CancelFunc
}

func (b *body) Read(p []byte) (int, error) { return b.pipe.Read(p) }

func (b *body) Close() error {
	b.cancel()
	b.pipe.abandon(errGone)
	return nil
}

// writer is the handler's side of one exchange.
type writer struct {
	header  http.Header
	pipe    *pipe
	once    sync.Once
	done    chan struct{} // closed when status and sent, or failure, are set
	status  int
	sent    http.Header
	failure error
}

func (w *writer) run(h http.Handler, r *http.Request) {
	defer func() {
		if p := recover(); p != nil { // upstream's filters log a panic before they pass it on
			w.once.Do(func() {
				w.failure = io.ErrUnexpectedEOF
				close(w.done)
			})
			w.pipe.finish(io.ErrUnexpectedEOF)
			return
		}
		w.WriteHeader(http.StatusOK)
		w.pipe.finish(io.EOF)
	}()
	h.ServeHTTP(w, r)
}

func (w *writer) response(req *http.Request, body io.ReadCloser) *http.Response {
	length := int64(-1)
	if n, err := strconv.ParseInt(w.sent.Get("Content-Length"), 10, 64); err == nil {
		length = n
	}
	return &http.Response{
		Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), StatusCode: w.status,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: w.sent, Body: body, ContentLength: length, Request: req,
	}
}

func (w *writer) Header() http.Header { return w.header }

func (w *writer) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.done)
	})
}

func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(p)
}

// Flush implements http.Flusher; nothing is held back.
func (w *writer) Flush() { w.WriteHeader(http.StatusOK) }

// CloseNotify makes upstream's wrappers treat w as an HTTP/2 writer. Nobody waits for it: they
// use the request's context.
//
// Deprecated: as in net/http.
func (w *writer) CloseNotify() <-chan bool { return nil }

var (
	_ http.Flusher       = (*writer)(nil)
	_ http.CloseNotifier = (*writer)(nil)
)
