package datadir

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("second open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{"999\n": "newer release", "x": "damaged"} {
		if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("VERSION %q: %v", content, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "VERSION")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "VERSION is missing") {
		t.Errorf("VERSION lost beside state: %v", err)
	}
}

// The lock of a killed agent outlives it for a moment; that of a living one is respected at once.
func TestDataDirOfKilledAgent(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if holderIsDying(d.lock.Name()) {
		t.Error("we are dying")
	}
	if err := os.WriteFile(d.lock.Name(), []byte("4194304\n"), 0o600); err != nil { // no pid is that high
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		second, err := Open(dir)
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Errorf("opened under the lock: %v", err)
	case <-time.After(3 * dyingPoll):
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestAwaitFree(t *testing.T) {
	dir := t.TempDir()
	if err := AwaitFree(t.Context(), dir); err != nil {
		t.Errorf("nobody was ever there: %v", err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 3*dyingPoll)
	defer cancel()
	if err := AwaitFree(short, dir); err == nil {
		t.Error("in use, and said to be free")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := AwaitFree(t.Context(), dir); err != nil {
		t.Error(err)
	}
}
