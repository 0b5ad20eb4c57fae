package inproc

import (
	"io"
	"sync"
)

const (
	// pipeLimit is how much a handler may write ahead of the reader.
	pipeLimit = 64 << 10
	// pipeKeep is the largest buffer that an idle pipe holds on to.
	pipeKeep = 4 << 10
)

// pipe carries a response body from a handler to a client in this process. Unlike io.Pipe it
// lets the handler finish a short response that nobody reads, as a socket would.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	off     int   // buf[:off] has been read
	end     error // what a reader gets after the buffer; nil while the handler writes
	gone    error // what a writer gets; nil while the client reads
}

func newPipe() *pipe {
	p := &pipe{}
	p.changed.L = &p.mu
	return p
}

// Read implements io.Reader for the client.
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.off == len(p.buf) {
		switch {
		case p.gone != nil:
			return 0, p.gone
		case p.end != nil:
			return 0, p.end
		}
		p.changed.Wait()
	}
	n := copy(b, p.buf[p.off:])
	if p.off += n; p.off == len(p.buf) {
		p.buf, p.off = p.buf[:0], 0
		if cap(p.buf) > pipeKeep {
			p.buf = nil
		}
	}
	p.changed.Broadcast()
	return n, nil
}

// Write implements io.Writer for the handler.
func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.gone == nil && p.off < len(p.buf) && len(p.buf)-p.off+len(b) > pipeLimit {
		p.changed.Wait()
	}
	if p.gone != nil {
		return 0, p.gone
	}
	p.buf = append(p.buf, b...)
	p.changed.Broadcast()
	return len(b), nil
}

// finish says that the handler has returned: io.EOF, or the error that ended it.
func (p *pipe) finish(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end == nil {
		p.end = err
	}
	p.changed.Broadcast()
}

// abandon says that the client has gone.
func (p *pipe) abandon(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone == nil {
		p.gone = err
		p.buf, p.off = nil, 0
	}
	p.changed.Broadcast()
}

var _ io.ReadWriter = (*pipe)(nil)
