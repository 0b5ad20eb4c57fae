package lead

import (
	"context"
	"log/slog"
)

// Quiet returns a logger for a duty: what it says after its office has ended is for debugging only. A
// scheduler with a hundred pods in hand has as many errors then, and the next leader has the pods.
func Quiet(office context.Context, l *slog.Logger) *slog.Logger {
	return slog.New(quiet{l.Handler(), office})
}

type quiet struct {
	slog.Handler
	office context.Context
}

func (q quiet) level(l slog.Level) slog.Level {
	if q.office.Err() != nil {
		return min(l, slog.LevelDebug)
	}
	return l
}

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, q.level(l))
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Level = q.level(r.Level); !q.Handler.Enabled(ctx, r.Level) {
		return nil // its office ended after Enabled was asked
	}
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a), q.office} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name), q.office} }
