package wire

import (
	"bufio"
	"io"
	"slices"
	"sync"
)

const bufferSize = 32 << 10

// parcel is a frame on its way out.
type parcel struct {
	frame
	sent func() // called when it is on its way; may be nil
}

// outbox writes frames to a connection in a goroutine of its own: nobody who has something to say waits for the
// network, and what piles up meanwhile goes out in one piece. Whoever puts parcels in bounds their number.
type outbox struct {
	mu    sync.Mutex
	queue []*parcel
	wake  chan struct{} // holds one
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

func (o *outbox) put(p *parcel) {
	o.mu.Lock()
	o.queue = append(o.queue, p)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// withdraw takes a parcel back; false when it is on its way or has gone.
func (o *outbox) withdraw(p *parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.Index(o.queue, p)
	if i < 0 {
		return false
	}
	o.queue = slices.Delete(o.queue, i, i+1)
	return true
}

func (o *outbox) take() *parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return nil
	}
	p := o.queue[0]
	o.queue[0] = nil
	o.queue = o.queue[1:]
	return p
}

// run writes until done is closed (nil), a write fails, or stop, asked before anything is taken after a rest,
// says why not to go on.
func (o *outbox) run(w io.Writer, done <-chan struct{}, stop func() error) error {
	b := bufio.NewWriterSize(w, bufferSize)
	for {
		select {
		case <-o.wake:
		case <-done:
			return nil
		}
		if err := stop(); err != nil {
			return err
		}
		for p := o.take(); p != nil; p = o.take() {
			if err := writeFrame(b, p.frame); err != nil {
				return err
			}
			if p.sent != nil {
				p.sent()
			}
		}
		if err := b.Flush(); err != nil {
			return err
		}
	}
}
