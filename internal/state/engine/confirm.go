package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// confirmations are what other replicas answered to AppendEntries of this one.
type confirmations struct {
	mu   sync.Mutex
	last map[raft.ServerID]confirmation
	news chan struct{} // closed at the next one; nil: nobody waits for it
}

// confirmation says that a replica followed this one in a term, at a moment after the question was sent.
type confirmation struct {
	term uint64
	sent time.Time
}

// since tells whether it is of a term, and the question was sent at begun or later.
func (c confirmation) since(term uint64, begun time.Time) bool {
	return c.term == term && !c.sent.Before(begun)
}

func newConfirmations() *confirmations {
	return &confirmations{last: map[raft.ServerID]confirmation{}}
}

func (c *confirmations) add(id raft.ServerID, term uint64, sent time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.last[id]; old.term > term || old.term == term && old.sent.After(sent) {
		return // two questions to one replica may overtake each other
	}
	c.last[id] = confirmation{term, sent}
	if c.news != nil {
		close(c.news)
		c.news = nil
	}
}

func (c *confirmations) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.news == nil {
		c.news = make(chan struct{})
	}
	return c.news
}

// majority tells whether most voters, self included, have followed in a term to a question that was
// sent at since or later.
func (c *confirmations) majority(members raft.Configuration, self raft.ServerID, term uint64, since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	voters, yes := 0, 0
	for _, s := range members.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == self || c.last[s.ID].since(term, since) {
			yes++
		}
	}
	return yes > voters/2
}

// heirs are the voters that have followed in a term at since or later, the most recent one first.
func (c *confirmations) heirs(members raft.Configuration, self raft.ServerID, term uint64, since time.Time) []raft.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []raft.Server
	for _, s := range members.Servers {
		if s.Suffrage == raft.Voter && s.ID != self && c.last[s.ID].since(term, since) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b raft.Server) int { return c.last[b.ID].sent.Compare(c.last[a.ID].sent) })
	return out
}

// Confirm returns once this replica is known to have led after the call began: most voters have followed
// it since (Raft, section 8: what must precede a read-only request). Raft's VerifyLeader says less: it
// counts replicas without a vote, and answers to what was sent before it was asked; only the lease made
// that right. Here it makes Raft ask everybody at once.
func (in *Engine) Confirm(ctx context.Context) error {
	begun, term := time.Now(), in.ready.Load()
	if err := in.Await(ctx, in.Raft.VerifyLeader); err != nil {
		return err
	}
	for {
		news, changed := in.confirmed.next(), in.Change()
		if !in.Leads() || in.ready.Load() != term {
			return raft.ErrLeadershipLost
		}
		if in.confirmed.majority(in.Members(), in.Self, term, begun) {
			return nil
		}
		select {
		case <-news:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-in.stopped:
			return raft.ErrRaftShutdown
		}
	}
}
