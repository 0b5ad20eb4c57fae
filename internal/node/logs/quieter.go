package logs

import (
	"context"
	"log/slog"
)

// quieter turns upstream's information messages into debug messages and leaves the others.
type quieter struct{ next slog.Handler }

func lower(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return min(l, slog.LevelDebug)
	}
	return l
}

func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return q.next.Enabled(ctx, lower(l))
}

func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return q.next.Handle(ctx, r)
}

func (q quieter) WithAttrs(attrs []slog.Attr) slog.Handler { return quieter{q.next.WithAttrs(attrs)} }

func (q quieter) WithGroup(name string) slog.Handler { return quieter{q.next.WithGroup(name)} }

// retries turns what upstream's loops report and then try again into debug messages: a namespace
// that is not empty yet, an object that changed meanwhile. Upstream marks them by the logger's name.
// Messages that come in the ordinary course of things and say nothing are lowered too.
type retries struct{ slog.Handler }

// upstreamRetry is the name of k8s.io/apimachinery/pkg/util/runtime's logger.
const upstreamRetry = "UnhandledError"

// manifest is what upstream says when no list of allowed metric labels is given: always.
const manifest = "The manifest file is empty, ignoring."

// ordinary are the messages that are no news. A controller registers its metrics once in a process, and
// says so when it begins again with the next leadership. One whose leadership ends while it begins tells that
// its events have no way out, of which it has none. Watches end only when they are cut, as every end of the
// server does.
func ordinary(message string) bool {
	switch message {
	case manifest, "unable to register metrics", "Unable start event watcher (will not retry!)",
		"Failed to shutdown server: context deadline exceeded":
		return true
	}
	return false
}

// Handle implements slog.Handler.
func (h retries) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "logger" && a.Value.String() == upstreamRetry {
			r.Level = slog.LevelDebug
		}
		return true
	})
	if ordinary(r.Message) {
		r.Level = slog.LevelDebug
	}
	if !h.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h retries) WithAttrs(attrs []slog.Attr) slog.Handler {
	return retries{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h retries) WithGroup(name string) slog.Handler { return retries{h.Handler.WithGroup(name)} }
