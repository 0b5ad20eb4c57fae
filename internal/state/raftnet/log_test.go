package raftnet

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestOnlyTheLossOfALeaderIsWarnedOf(t *testing.T) {
	for lost, want := range map[string]string{"": "level=DEBUG", "n2": "level=WARN"} {
		var out bytes.Buffer
		b := NewLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		b.Warn(noHeartbeat, "last-leader-addr", "", "last-leader-id", lost)
		if !strings.Contains(out.String(), want) {
			t.Errorf("last leader %q: %s, want %s", lost, out.String(), want)
		}
	}
}

func TestCatchingUpIsNoTrouble(t *testing.T) {
	for _, c := range []struct {
		msg  string
		err  error
		want string
	}{
		{"failed to get log", raft.ErrLogNotFound, "level=DEBUG"},
		{"failed to get log", errors.New("the disk is gone"), "level=ERROR"},
		{"rejecting pre-vote request since we have a leader", nil, "level=DEBUG"},
		{"rejecting vote request since our last index is greater", nil, "level=DEBUG"},
		{"failed to vote", nil, "level=ERROR"},
	} {
		var out bytes.Buffer
		NewLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))).Error(c.msg, "index", 1, "error", c.err)
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v: %s, want %s", c.msg, c.err, out.String(), c.want)
		}
	}
}
