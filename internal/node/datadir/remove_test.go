package datadir

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRemoveSparesForeignFiles(t *testing.T) {
	home := t.TempDir()
	letter := filepath.Join(home, "letter")
	if err := os.WriteFile(letter, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RefuseForeign(home); err == nil || !strings.Contains(err.Error(), "nothing was removed") {
		t.Errorf("somebody's directory: %v", err)
	}
	d, err := Open(filepath.Join(home, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := RefuseForeign(d.Path()); err != nil {
		t.Error(err)
	}
	kept := filepath.Join(d.Path(), "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if err := errors.Join(RefuseForeign(d.Path()), Remove(d.Path(), log)); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(d.Path()); err != nil || len(entries) != 1 || entries[0].Name() != "kept" {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := errors.Join(os.Remove(kept), Remove(d.Path(), log), Remove(d.Path(), log)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty data directory: %v", err)
	}
	if _, err := os.Stat(letter); err != nil {
		t.Error(err)
	}
}
