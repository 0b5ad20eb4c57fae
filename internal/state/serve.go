package state

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/voters"
)

// Serve answers a call that another replica's Network carried here. Any input is safe.
func (s *Store) Serve(ctx context.Context, request []byte) []byte {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	q, err := call.DecodeRequest(request)
	var a call.Answer
	if err == nil {
		a, err = s.answer(ctx, q)
	}
	return a.Of(err).Encode()
}

func (s *Store) answer(ctx context.Context, q call.Request) (call.Answer, error) {
	in := s.instance()
	if in == nil || q.Lineage != in.Lineage() || s.ctx.Err() != nil {
		return call.Answer{}, errRetry
	}
	if q.Kind == call.Position {
		return s.position(in)
	}
	if !in.Leads() {
		return call.Answer{}, errRetry
	}
	switch q.Kind {
	case call.Write:
		return s.serveWrite(ctx, in, q.Body)
	case call.Barrier:
		return s.serveBarrier(ctx, in, q.Body)
	case call.Meet:
		return s.serveMeet(ctx, in, q.Body)
	case call.Merge:
		return s.serveMerge(ctx, in, q.Body)
	case call.Leave:
		return call.Answer{}, s.dismiss(ctx, in, raft.ServerID(q.Body))
	case call.Position:
	}
	return call.Answer{}, call.ErrMalformed
}

// position says how far the log reaches. Who could still go back to another lineage, or has not
// got all that came before it was taken in, or cannot read it, is in no position to go on alone or to vote.
func (s *Store) position(in *engine.Engine) (call.Answer, error) {
	term, index, err := in.Stores.Last()
	r := call.Reach{Eligible: in.Member() && !in.Moving() && in.Machine.Stuck() == nil, Full: s.space.Check() != nil, Term: term, Index: index}
	return call.Answer{Body: r.Encode()}, err
}

// serveBarrier vouches for a revision. Who asks may have all that is committed without knowing that
// it is, as after a start.
func (s *Store) serveBarrier(ctx context.Context, in *engine.Engine, body []byte) (call.Answer, error) {
	rev, err := s.vouch(ctx, in)
	if have, n := binary.Uvarint(body); err == nil && n > 0 && have < rev {
		in.Tell()
	}
	return call.Answer{Revision: rev}, err
}

func (s *Store) serveWrite(ctx context.Context, in *engine.Engine, body []byte) (call.Answer, error) {
	m, err := call.DecodeMutation(body)
	if err == nil {
		err = m.Validate()
	}
	if err != nil {
		return call.Answer{}, err
	}
	res, err := s.propose(ctx, in, Write(m))
	a := call.Answer{Revision: res.Revision}
	entry := res.Entry
	if errors.Is(err, ErrConflict) {
		entry = res.Current
	}
	if entry != nil {
		a.Body = entry.Append(nil)
	}
	return a, err
}

// serveMeet gives a replica of another lineage its turn to hand over, and this one's lineage.
func (s *Store) serveMeet(ctx context.Context, in *engine.Engine, body []byte) (call.Answer, error) {
	server, rest, err := call.TakeName(body)
	if err != nil {
		return call.Answer{}, err
	}
	from, err := ancestry.DecodeLineage(rest)
	if err != nil {
		return call.Answer{}, err
	}
	if _, err := s.vouch(ctx, in); err != nil {
		return call.Answer{}, err
	}
	if !s.turns.Wait(ctx, from.ID, server) {
		return call.Answer{}, errRetry
	}
	return call.Answer{Body: in.Machine.Lineage().Append(nil)}, nil
}

// serveMerge proposes a part of what is handed over.
func (s *Store) serveMerge(ctx context.Context, in *engine.Engine, body []byte) (call.Answer, error) {
	server, rest, err := call.TakeName(body)
	if err != nil {
		return call.Answer{}, err
	}
	m, err := machine.DecodeMerge(rest)
	if err != nil {
		return call.Answer{}, err
	}
	if err := s.room(ctx, in); err != nil {
		return call.Answer{}, err
	}
	s.turns.Take(m.From.ID, server, time.Now())
	m.Now = s.cfg.Lab.Now().Unix()
	if !in.Begin() {
		return call.Answer{}, errRetry
	}
	defer in.Landed()
	res, err := s.commit(ctx, in, m.Encode())
	if err == nil && m.Final {
		s.turns.End(m.From.ID, server)
	}
	return call.Answer{Revision: res.Revision}, err
}

// dismiss takes a replica that leaves out of the configuration.
func (s *Store) dismiss(ctx context.Context, in *engine.Engine, id raft.ServerID) error {
	s.mu.Lock()
	s.left[id] = time.Now()
	s.mu.Unlock()
	in.Broadcast() // so that it is forgotten in time
	return in.Await(ctx, func() raft.Future { return voters.Change{Op: voters.Remove, ID: id}.Begin(in.Raft) })
}
