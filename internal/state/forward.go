package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

// forward has the leader make the write, and waits until it is applied here too.
func (s *Store) forward(ctx context.Context, in *engine.Engine, leader string, w Write) (Result, error) {
	a, err := s.ask(ctx, in, leader, call.Request{Kind: call.Write, Lineage: in.Lineage(), Body: call.Mutation(w).Encode()})
	if err != nil {
		return Result{}, err
	}
	var entry *Entry
	if len(a.Body) > 0 {
		if entry, err = machine.DecodeEntry(a.Body); err != nil {
			return Result{}, err
		}
	}
	// Also after a conflict: the caller's next read should see what it collided with.
	if err := s.WaitRevision(ctx, a.Revision); err != nil {
		return Result{}, err
	}
	if a.Status == call.Conflict {
		return Result{Revision: a.Revision, Current: entry}, ErrConflict
	}
	return Result{Revision: a.Revision, Entry: entry}, nil
}

// forwardBarrier has the leader vouch for a revision.
func (s *Store) forwardBarrier(ctx context.Context, in *engine.Engine, leader string) (uint64, error) {
	have := binary.AppendUvarint(nil, in.Machine.Revision())
	a, err := s.ask(ctx, in, leader, call.Request{Kind: call.Barrier, Lineage: in.Lineage(), Body: have})
	if err != nil && ctx.Err() == nil && !errors.Is(err, call.ErrMalformed) {
		return 0, errRetry // asking again harms nobody
	}
	return a.Revision, err
}

// lastWords is how long one that leads no more is listened to: after a hand-over it says at once what became of a write.
const lastWords = 300 * time.Millisecond

// ask asks the leader as long as it is that. One that lost power does not answer, and the network
// takes seconds to say so, in which another has long been elected.
func (s *Store) ask(ctx context.Context, in *engine.Engine, leader string, q call.Request) (call.Answer, error) {
	asked, end := context.WithCancel(ctx)
	defer end()
	go func() {
		for {
			changed := in.Change()
			if now, ok := s.leader(in); ok && now != leader || in.Leads() || s.instance().Lineage() != in.Lineage() {
				time.AfterFunc(lastWords, end)
				return
			}
			select {
			case <-changed:
			case <-asked.Done():
				return
			}
		}
	}()
	a, err := s.call(asked, leader, q)
	switch {
	case errors.Is(err, ErrUnsent):
		err = call.Unsent(err)
	case err != nil && asked.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("%w: the replica at %s leads no more, the write may have happened", ErrNoLeader, leader)
	}
	return a, err
}

// call asks a peer and turns what went wrong there into errors.
func (s *Store) call(ctx context.Context, addr string, q call.Request) (call.Answer, error) {
	b, err := s.cfg.Network.Call(ctx, addr, q.Encode())
	if errors.Is(err, ErrUnsent) {
		return call.Answer{}, fmt.Errorf("%w: replica at %s: %w", ErrNoLeader, addr, err)
	}
	if err != nil {
		if ctx.Err() != nil {
			return call.Answer{}, ctx.Err()
		}
		return call.Answer{}, fmt.Errorf("%w: replica at %s: %w, the write may have happened", ErrNoLeader, addr, err)
	}
	a, err := call.DecodeAnswer(b)
	if err == nil {
		err = a.Err()
	}
	return a, err
}
