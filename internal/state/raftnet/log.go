package raftnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// bridge is an hclog.Logger on slog. Raft's talk about its own state is Debug here: what an
// operator should know, this package says itself.
type bridge struct {
	hclog.Logger // a null logger, for the methods nobody calls
	log          *slog.Logger
	args         []any
}

// noHeartbeat is what Raft says when it stands for election. While no leader is known, as at every
// start, that is no news; the loss of a leader is.
const noHeartbeat = "heartbeat timeout reached, starting election"

// unreached is what Raft says of peers that do not answer, several times a second for each. Gossip
// says once that a member is dead, which is all that there is to know.
func unreached(msg string) bool {
	switch msg {
	case "failed to make requestVote RPC", "failed to heartbeat to", "failed to appendEntries to", "failed to contact",
		"failed to get previous log", "failed to decode incoming command", "failed to flush response", "failed to contact quorum of nodes, stepping down",
		"failed to pipeline appendEntries":
		return true
	}
	return false
}

// ordinary is how an election and catching up go: somebody stands and is not chosen, a follower lacks some
// entries, or so many that it gets a snapshot.
func ordinary(msg string, args []any) bool {
	switch msg {
	case "no known peers, aborting election", "Election timeout reached, restarting election", "appendEntries rejected, sending older logs":
		return true
	case "failed to get log":
		return slices.ContainsFunc(args, func(a any) bool { err, ok := a.(error); return ok && errors.Is(err, raft.ErrLogNotFound) })
	}
	return strings.HasPrefix(msg, "rejecting vote request") || strings.HasPrefix(msg, "rejecting pre-vote request")
}

// named tells whether the arguments of noHeartbeat name the leader that was lost.
func named(args []any) bool {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "last-leader-id" {
			return fmt.Sprint(args[i+1]) != ""
		}
	}
	return false
}

// NewLogger returns a logger for Raft that writes to l.
func NewLogger(l *slog.Logger) hclog.Logger {
	return &bridge{Logger: hclog.NewNullLogger(), log: l}
}

func (b *bridge) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		if to = slog.LevelError; unreached(msg) || ordinary(msg, args) {
			to = slog.LevelDebug
		}
	case hclog.Warn:
		if to = slog.LevelWarn; msg == noHeartbeat && !named(args) || unreached(msg) || ordinary(msg, args) {
			to = slog.LevelDebug
		}
	default:
	}
	ctx := context.Background() //nolint:forbidigo // hclog has no contexts
	if !b.log.Enabled(ctx, to) {
		return
	}
	for i, a := range args {
		// hclog's lazily formatted values
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	b.log.Log(ctx, to, "raft", append([]any{"says", msg}, args...)...)
}

func (b *bridge) Trace(string, ...any)           {}
func (b *bridge) Debug(msg string, args ...any)  { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)   { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)   { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any)  { b.Log(hclog.Error, msg, args...) }
func (b *bridge) IsDebug() bool                  { return true }
func (b *bridge) IsInfo() bool                   { return true }
func (b *bridge) IsWarn() bool                   { return true }
func (b *bridge) IsError() bool                  { return true }
func (b *bridge) ImpliedArgs() []any             { return b.args }
func (b *bridge) Named(string) hclog.Logger      { return b }
func (b *bridge) ResetNamed(string) hclog.Logger { return b }

func (b *bridge) With(args ...any) hclog.Logger {
	return &bridge{Logger: b.Logger, log: b.log.With(args...), args: append(b.args[:len(b.args):len(b.args)], args...)}
}

func (b *bridge) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(b.log.Handler(), slog.LevelDebug)
}

func (b *bridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return b.StandardLogger(nil).Writer()
}
