package node

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
