package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// ErrUnsent is within the error of a call whose request certainly did not go out: nothing answers at the address,
// the connection ended before its turn came, or its context did.
var ErrUnsent = errors.New("the request was not sent")

var errEnded = fmt.Errorf("%w: the connection ended before that", ErrUnsent)

// callTries is how many connections a request is offered to that end before it was sent.
const callTries = 3

// Call sends a request to the node of this cluster at addr, which answers by Serve. Calls to the same address and
// protocol share one connection that is kept. The request must not be changed afterwards. After an error the request
// may or may not have arrived, but for ErrUnsent, a dial's errors included. A request that did not go out because the
// kept connection had ended is sent over a new one.
func (w *Wire) Call(ctx context.Context, addr, proto string, req []byte) ([]byte, error) {
	if len(req) > MaxMessage {
		return nil, fmt.Errorf("call %s for %s: the request has %d bytes, at most %d are allowed", addr, proto, len(req), MaxMessage)
	}
	var err error
	for range callTries {
		var l *link
		if l, err = w.link(ctx, target{addr, proto}); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsent, err)
		}
		var body []byte
		if body, err = l.call(ctx, req); err == nil {
			return body, nil
		}
		if ctx.Err() != nil || !errors.Is(err, ErrUnsent) {
			break
		}
	}
	return nil, fmt.Errorf("call %s for %s: %w", addr, proto, err)
}

type target struct{ addr, proto string }

// link is the calling end of one kept connection.
type link struct {
	opened chan struct{} // closed when the dial has ended
	failed error         // the dial's error; set before opened is closed

	c     *Conn
	out   *outbox
	slots chan struct{} // one for each call under way

	mu    sync.Mutex
	calls map[uint64]*call
	last  uint64
	ended error // why no more calls are taken
}

type call struct {
	parcel *parcel
	done   chan struct{} // closed when the call has ended by answer or error
	body   []byte
	err    error
}

// link returns the connection to a target. The first who asks makes it dial, all who ask meanwhile wait for that.
func (w *Wire) link(ctx context.Context, to target) (*link, error) {
	w.mu.Lock()
	l := w.links[to]
	if l == nil && !w.closed {
		l = &link{
			opened: make(chan struct{}), out: newOutbox(),
			slots: make(chan struct{}, maxCalls), calls: map[uint64]*call{},
		}
		w.links[to] = l
		w.tasks.Go(func() { w.run(l, to) })
	}
	w.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("call %s for %s: %w", to.addr, to.proto, net.ErrClosed)
	}
	select {
	case <-l.opened:
		return l, l.failed
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s for %s: %w", to.addr, to.proto, ctx.Err())
	}
}

// run opens a link's connection and reads answers from it until it ends.
func (w *Wire) run(l *link, to target) {
	leave := sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.links[to] == l {
			delete(w.links, to)
		}
	})
	c, err := w.Dial(w.ctx, to.addr, to.proto)
	if err != nil {
		leave()
		l.failed = err
		close(l.opened)
		return
	}
	l.c = c
	close(l.opened)
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		err := l.out.run(c, done, func() error {
			if hungUp(c.raw) {
				return io.EOF
			}
			return nil
		})
		if err == nil {
			return
		}
		leave()
		l.refuse(err)
		if !errors.Is(err, io.EOF) { // after hanging up, answers may still be under way to the reader
			_ = c.Close()
		}
	})
	err = l.read(bufio.NewReaderSize(c, bufferSize))
	leave()
	l.refuse(err)
	_ = c.Close()
	close(done)
	writer.Wait()
	l.end(err)
}

func (l *link) read(in io.Reader) error {
	for {
		f, err := readFrame(in)
		if err != nil {
			return err
		}
		switch f.kind {
		case answer:
			l.finish(f.id, f.body, nil)
		case failure:
			l.finish(f.id, nil, errors.New(string(f.body)))
		default:
			return fmt.Errorf("frame of kind %d from an answering peer", f.kind)
		}
	}
}

// finish ends a call; one that has been given up is unknown.
func (l *link) finish(id uint64, body []byte, err error) {
	l.mu.Lock()
	c := l.calls[id]
	delete(l.calls, id)
	l.mu.Unlock()
	if c != nil {
		c.body, c.err = body, err
		close(c.done)
	}
}

// refuse takes no more calls, and ends those whose request is still here.
func (l *link) refuse(why error) {
	l.mu.Lock()
	if l.ended == nil {
		l.ended = why
	}
	var unsent []uint64
	for id, c := range l.calls {
		if l.out.withdraw(c.parcel) {
			unsent = append(unsent, id)
		}
	}
	l.mu.Unlock()
	for _, id := range unsent {
		l.finish(id, nil, errEnded)
	}
}

// end ends the calls that will not be answered any more.
func (l *link) end(why error) {
	l.mu.Lock()
	var left []uint64
	for id := range l.calls {
		left = append(left, id)
	}
	l.mu.Unlock()
	for _, id := range left {
		l.finish(id, nil, fmt.Errorf("the connection ended before the answer came: %w", why))
	}
}

func (l *link) call(ctx context.Context, req []byte) ([]byte, error) {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnsent, ctx.Err())
	}
	defer func() { <-l.slots }()
	l.mu.Lock()
	if l.ended != nil {
		l.mu.Unlock()
		return nil, errEnded
	}
	l.last++
	id := l.last
	c := &call{done: make(chan struct{}), parcel: &parcel{frame: frame{kind: request, id: id, body: req}}}
	l.calls[id] = c
	l.out.put(c.parcel)
	l.mu.Unlock()
	select {
	case <-c.done:
		return c.body, c.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	_, open := l.calls[id]
	delete(l.calls, id)
	l.mu.Unlock()
	if !open { // it ended at the same moment
		<-c.done
		return c.body, c.err
	}
	if l.out.withdraw(c.parcel) {
		return nil, fmt.Errorf("%w: %w", ErrUnsent, ctx.Err())
	}
	l.out.put(&parcel{frame: frame{kind: cancel, id: id}})
	return nil, ctx.Err()
}
