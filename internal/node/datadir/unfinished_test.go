package datadir

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestUnfinished(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Unfinished() {
		t.Error("a new directory is unfinished")
	}
	if err := errors.Join(d.Begin("a"), d.Begin("b")); err != nil || !d.Unfinished() {
		t.Errorf("begun: %v", err)
	}
	if err := d.Finish(); err != nil || d.Unfinished() {
		t.Errorf("finished: %v", err)
	}
	if err := errors.Join(d.Begin("a"), Remove(d.Path(), slog.New(slog.DiscardHandler))); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removing leaves it: %v", err)
	}
}
