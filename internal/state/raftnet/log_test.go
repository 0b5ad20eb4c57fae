package raftnet

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
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
