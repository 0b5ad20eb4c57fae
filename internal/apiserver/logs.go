package apiserver

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// bridgeLogs sends what upstream writes with klog to l, one level down: what is information to
// a developer of Kubernetes is debugging to an operator of a swarm, and its errors are mostly
// retried.
func bridgeLogs(l *slog.Logger) {
	klog.SetSlogLogger(slog.New(quieter{l.With("part", "kubernetes").Handler()}))
}

type quieter struct{ slog.Handler }

func demote(l slog.Level) slog.Level {
	switch {
	case l >= slog.LevelError:
		return slog.LevelWarn
	case l > slog.LevelDebug:
		return slog.LevelDebug
	}
	return l
}

func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, demote(l))
}

func (q quieter) Handle(ctx context.Context, r slog.Record) error { //nolint:gocritic // slog's signature
	r.Level = demote(r.Level)
	return q.Handler.Handle(ctx, r)
}

func (q quieter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quieter{q.Handler.WithAttrs(attrs)}
}

func (q quieter) WithGroup(name string) slog.Handler { return quieter{q.Handler.WithGroup(name)} }
