package engine

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// patience is how long one write to the log may take before a leader counts as stalled: longer than the pauses of
// an SD card that collects garbage.
const patience = 5 * time.Second

var errStalled = errors.New("the disk of this replica does not answer")

// stall knows whether a write to the log has been under way for too long. A disk can hang without an error. Raft's
// leader waits for it then, but sends heartbeats all the time: no write would succeed, and nobody stand for election.
// So a stalled engine does not lead, and says nothing to its followers.
type stall struct {
	changed func(stalled bool)
	on      atomic.Bool

	mu      sync.Mutex
	writing bool
}

// write does a write, and notes when that takes longer than patience.
func (s *stall) write(do func() error) error {
	s.set(true)
	late := time.AfterFunc(patience, s.late)
	err := do()
	late.Stop()
	s.set(false)
	return err
}

func (s *stall) set(writing bool) {
	s.mu.Lock()
	s.writing = writing
	was := s.on.Swap(false)
	s.mu.Unlock()
	if was {
		s.changed(false)
	}
}

func (s *stall) late() {
	s.mu.Lock()
	late := s.writing
	s.on.Store(late)
	s.mu.Unlock()
	if late {
		s.changed(true)
	}
}

// watchedLog is the log of one engine. Raft writes to it from one goroutine.
type watchedLog struct {
	raft.LogStore
	*stall
}

// StoreLog implements raft.LogStore.
func (w watchedLog) StoreLog(l *raft.Log) error {
	return w.write(func() error { return w.LogStore.StoreLog(l) })
}

// StoreLogs implements raft.LogStore.
func (w watchedLog) StoreLogs(logs []*raft.Log) error {
	return w.write(func() error { return w.LogStore.StoreLogs(logs) })
}

// silent is a pipeline of entries that carries none while the engine is stalled.
type silent struct {
	raft.AppendPipeline
	*stall
}

// AppendEntries implements raft.AppendPipeline.
func (p silent) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.on.Load() {
		return nil, errStalled
	}
	return p.AppendPipeline.AppendEntries(args, resp)
}

// Stalled tells whether the disk does not answer.
func (in *Engine) Stalled() bool { return in.stall.on.Load() }
