package raftnet

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline implements raft.Transport.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(inner), nil
}

// pipeline keeps Raft (v1.8.0) from a deadlock. Who takes the answers leaves after the first that is a
// refusal or a failure; who sends waits until an answer is taken, and would notice only after that: this
// follower would get nothing any more, and Raft could not be shut down. So what nobody takes is dropped.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	ended   chan struct{}
	once    sync.Once
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), ended: make(chan struct{})}
	go p.pass()
	return p
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.ended) })
	return p.AppendPipeline.Close()
}

func (p *pipeline) pass() {
	for taken := true; ; {
		select {
		case f := <-p.AppendPipeline.Consumer():
			if !taken {
				continue
			}
			select {
			case p.answers <- f:
				taken = f.Response().Success && f.Response().Term <= f.Request().Term
			case <-p.ended:
				return
			}
		case <-p.ended:
			return
		}
	}
}
