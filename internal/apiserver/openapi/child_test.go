package openapi

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writer is a command line that writes both parts and counts its runs.
func writer(t *testing.T) (command []string, runs func() int) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "runs")
	script := `nice >>"$1" && mkdir -p "$2/v2" "$2/v3"` // counted first: what is there ends the wait for it
	return []string{"sh", "-c", script, "sh", log}, func() int {
		data, err := os.ReadFile(log)
		if err != nil {
			return 0
		}
		return strings.Count(string(data), "\n")
	}
}

// Documents are written without being asked for, once.
func TestBuildsWhenIdle(t *testing.T) {
	command, runs := writer(t)
	dir := filepath.Join(t.TempDir(), "binary")
	idle := make(chan struct{})
	close(idle)
	for range 2 { // the second start has them
		b := newBuilds(dir, command, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		done := make(chan struct{})
		go func() { defer close(done); b.run(ctx, idle) }()
		if _, err := b.documents(ctx, "v2"); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
	}
	if n := runs(); n != 1 {
		t.Errorf("%d children", n)
	}
}

// Before that they are written when somebody asks.
func TestBuildsWhenAsked(t *testing.T) {
	command, runs := writer(t)
	b := newBuilds(filepath.Join(t.TempDir(), "binary"), command, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	done := make(chan struct{})
	go func() { defer close(done); b.run(ctx, make(chan struct{})) }()
	for _, part := range []string{"v3", "v2"} {
		if dir, err := b.documents(ctx, part); err != nil || filepath.Base(dir) != part {
			t.Errorf("documents(%s) = %s, %v", part, dir, err)
		}
	}
	cancel()
	<-done
	if n := runs(); n != 1 {
		t.Errorf("%d children", n)
	}
}
