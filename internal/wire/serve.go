package wire

import (
	"bufio"
	"context"
	"fmt"
	"sync"
)

// maxCalls is how many calls are under way over one connection; more wait at the caller.
const maxCalls = 256

// Serve answers the requests of a protocol. Each is answered in a goroutine of its own, with a context that ends
// when the caller gives up or its connection ends; there are at most 256 of one connection at a time.
func (w *Wire) Serve(proto string, answer func(ctx context.Context, peer string, req []byte) []byte) {
	w.Handle(proto, func(ctx context.Context, c *Conn) {
		s := session{c: c, answer: answer, out: newOutbox(), slots: make(chan struct{}, maxCalls), running: map[uint64]func(){}}
		if err := s.run(ctx); err != nil {
			w.cfg.Log.DebugContext(ctx, "calls of a peer ended", "peer", c.Peer, "protocol", proto, "err", err)
		}
	})
}

// session is the answering end of one connection.
type session struct {
	c      *Conn
	answer func(context.Context, string, []byte) []byte
	out    *outbox
	slots  chan struct{} // one for each call until its answer is written

	mu      sync.Mutex
	running map[uint64]func() // ends a call's context
}

func (s *session) run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	done := make(chan struct{})
	var writer, answers sync.WaitGroup
	writer.Go(func() {
		if s.out.run(s.c, done, func() error { return nil }) != nil {
			end()
			_ = s.c.Close()
		}
	})
	err := s.read(ctx, &answers)
	end()
	_ = s.c.Close()
	answers.Wait()
	close(done)
	writer.Wait()
	return err
}

func (s *session) read(ctx context.Context, answers *sync.WaitGroup) error {
	in := bufio.NewReaderSize(s.c, bufferSize)
	for {
		f, err := readFrame(in)
		if err != nil {
			return err
		}
		switch f.kind {
		case request:
			// The caller keeps to the same bound: this waits for calls that it has given up, if at all.
			select {
			case s.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			one, end := context.WithCancel(ctx)
			s.mu.Lock()
			twice := s.running[f.id] != nil
			s.running[f.id] = end
			s.mu.Unlock()
			if twice {
				end()
				return fmt.Errorf("call %d is asked twice", f.id)
			}
			answers.Go(func() { s.reply(one, f) })
		case cancel:
			s.mu.Lock()
			if end := s.running[f.id]; end != nil {
				end()
			}
			s.mu.Unlock()
		default:
			return fmt.Errorf("frame of kind %d from a caller", f.kind)
		}
	}
}

func (s *session) reply(ctx context.Context, f frame) {
	body := s.answer(ctx, s.c.Peer, f.body)
	s.mu.Lock()
	end, unwanted := s.running[f.id], ctx.Err() != nil
	delete(s.running, f.id)
	s.mu.Unlock()
	end()
	release := func() { <-s.slots }
	switch {
	case unwanted:
		release()
	case len(body) > MaxMessage:
		text := fmt.Sprintf("the answer has %d bytes, at most %d are allowed", len(body), MaxMessage)
		s.out.put(&parcel{frame: frame{kind: failure, id: f.id, body: []byte(text)}, sent: release})
	default:
		s.out.put(&parcel{frame: frame{kind: answer, id: f.id, body: body}, sent: release})
	}
}
