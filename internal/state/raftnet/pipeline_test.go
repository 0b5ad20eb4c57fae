package raftnet

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// narrow is a pipeline like Raft's: nothing is sent before the answer before the last was taken.
type narrow struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
}

func (n narrow) Consumer() <-chan raft.AppendFuture { return n.answers }
func (n narrow) Close() error                       { return nil }

type answer struct {
	raft.AppendFuture
	success bool
}

func (answer) Request() *raft.AppendEntriesRequest { return &raft.AppendEntriesRequest{Term: 2} }
func (a answer) Response() *raft.AppendEntriesResponse {
	return &raft.AppendEntriesResponse{Term: 2, Success: a.success}
}

// After a refusal nobody takes answers, and whoever sends is not held up by that.
func TestPipelineAfterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := narrow{answers: make(chan raft.AppendFuture)}
		p := newPipeline(inner)
		defer func() { _ = p.Close() }()
		reads := true // as Raft's reader does, until the first refusal
		for i, success := range []bool{true, false, true, true} {
			taken := make(chan struct{})
			go func() {
				defer close(taken)
				inner.answers <- answer{success: success}
			}()
			if reads {
				reads = (<-p.Consumer()).Response().Success
			}
			select {
			case <-taken:
			case <-time.After(time.Second):
				t.Fatalf("answer %d is not taken", i)
			}
		}
	})
}
