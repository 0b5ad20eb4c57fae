package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

// Peers carries a call to the replica at an address, whose Serve answers it. An error means that
// the call may or may not have arrived.
type Peers interface {
	Call(ctx context.Context, addr string, request []byte) (answer []byte, err error)
}

// A request is: version, kind, and for a write: flags, expected revision + 1, TTL, key, value.
// An answer is: version, status, revision, and the entry or the error's text, to the end.
const (
	wireVersion = 1

	askWrite   = 1
	askBarrier = 2

	statusOK = iota - 2
	statusConflict
	statusNoSpace
	statusRetry // certainly not proposed
	statusUnknown
)

var errBadCall = errors.New("malformed call between replicas")

// forward has the leader make the write, and waits until it is applied here too.
func (s *Store) forward(ctx context.Context, leader string, w Write) (Result, error) {
	req := []byte{wireVersion, askWrite, 0}
	if w.Delete {
		req[2], w.Value = 1, nil
	}
	req = binary.AppendUvarint(req, w.Expect+1)
	req = binary.AppendUvarint(req, uint64(w.TTL))
	req = binary.AppendUvarint(req, uint64(len(w.Key)))
	req = append(append(req, w.Key...), w.Value...)
	answer, err := s.call(ctx, leader, req)
	if err != nil {
		return Result{}, err
	}
	// Also after a conflict: the caller's next read should see what it collided with.
	if err := s.WaitRevision(ctx, answer.rev); err != nil {
		return Result{}, err
	}
	if answer.status == statusConflict {
		return Result{Revision: answer.rev, Current: answer.entry}, ErrConflict
	}
	return Result{Revision: answer.rev, Entry: answer.entry}, nil
}

// forwardBarrier has the leader vouch for a revision.
func (s *Store) forwardBarrier(ctx context.Context, leader string) (uint64, error) {
	answer, err := s.call(ctx, leader, []byte{wireVersion, askBarrier})
	if err != nil && ctx.Err() == nil && !errors.Is(err, errBadCall) {
		return 0, errRetry // asking again harms nobody
	}
	return answer.rev, err
}

type answer struct {
	status byte
	rev    uint64
	entry  *Entry
}

func (s *Store) call(ctx context.Context, leader string, req []byte) (answer, error) {
	b, err := s.cfg.Peers.Call(ctx, leader, req)
	if err != nil {
		if ctx.Err() != nil {
			return answer{}, ctx.Err()
		}
		return answer{}, fmt.Errorf("%w: leader at %s: %w, the write may have happened", ErrNoLeader, leader, err)
	}
	return decodeAnswer(b)
}

func decodeAnswer(b []byte) (answer, error) {
	var a answer
	if len(b) < 2 {
		return a, errBadCall
	}
	if err := codec.CheckVersion("answer from the leader", uint32(b[0]), wireVersion); err != nil {
		return a, err
	}
	a.status = b[1]
	r := codec.Reader{B: b[2:]}
	a.rev = r.Uvarint()
	switch {
	case r.Bad:
		return a, errBadCall
	case a.status == statusRetry:
		return a, errRetry
	case a.status == statusNoSpace:
		return a, fmt.Errorf("%w on the leader: %s", ErrNoSpace, r.B)
	case a.status > statusConflict:
		return a, fmt.Errorf("leader: %s", r.B)
	case len(r.B) > 0:
		var err error
		a.entry, err = machine.DecodeEntry(r.B)
		return a, err
	}
	return a, nil
}

// Serve answers a call that another replica's Peers carried here. Any input is safe.
func (s *Store) Serve(ctx context.Context, request []byte) []byte {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	var res Result
	err := errBadCall
	if len(request) >= 2 {
		err = codec.CheckVersion("call from a peer", uint32(request[0]), wireVersion)
	}
	if in := s.instance(); err == nil {
		switch {
		case !in.leads():
			err = errRetry
		case request[1] == askBarrier:
			res.Revision, err = s.vouch(ctx, in)
		case request[1] == askWrite:
			var w Write
			if w, err = decodeWrite(request[2:]); err == nil {
				res, err = s.propose(ctx, in, w)
			}
		default:
			err = errBadCall
		}
	}
	return encodeAnswer(res, err)
}

func decodeWrite(b []byte) (Write, error) {
	if len(b) == 0 {
		return Write{}, errBadCall
	}
	w, r := Write{Delete: b[0] == 1}, codec.Reader{B: b[1:]}
	w.Expect = r.Uvarint() - 1
	w.TTL = int64(min(r.Uvarint(), uint64(100*365*24*time.Hour/time.Second)))
	w.Key = string(r.Bytes(machine.MaxKey))
	if w.Value = r.B; r.Bad {
		return w, errBadCall
	}
	return w, w.validate()
}

func encodeAnswer(res Result, err error) []byte {
	status, text, entry := byte(statusOK), "", res.Entry
	switch {
	case err == nil:
	case errors.Is(err, ErrConflict):
		status, entry = statusConflict, res.Current
	case errors.Is(err, ErrNoSpace):
		status, text = statusNoSpace, err.Error()
	case errors.Is(err, errRetry):
		status = statusRetry
	default:
		status, text = statusUnknown, err.Error()
	}
	b := binary.AppendUvarint([]byte{wireVersion, status}, res.Revision)
	if entry != nil && text == "" {
		return entry.Append(b)
	}
	return append(b, text...)
}
