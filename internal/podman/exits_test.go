package podman

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func exitID(c string) string { return strings.Repeat(c, 64) }

// putExit writes an exit file as conmon does.
func putExit(t *testing.T, dir, name, text string) {
	t.Helper()
	tmp := filepath.Join(filepath.Dir(dir), "tmp")
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, filepath.Join(dir, name))); err != nil {
		t.Fatal(err)
	}
}

// watched runs WatchExits for the test and hands out what it tells.
func watched(t *testing.T, dir string, fn func(Exit)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- WatchExits(ctx, dir, fn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// await drops exits until the wanted one comes.
func await(t *testing.T, exits <-chan Exit, what string, want func(Exit) bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e := <-exits:
			if want(e) {
				return
			}
		case <-deadline:
			t.Fatalf("not told of %s", what)
		}
	}
}

func missed(e Exit) bool { return e.ID == "" }

// Podman removes an exit file some 30 ms after it was written: who reads late must not think that
// nothing has ended.
func TestExitFileGoneBeforeItIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exits")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	exits, late := make(chan Exit, 100), make(chan struct{})
	watched(t, dir, func(e Exit) {
		exits <- e
		if e.ID == exitID("a") {
			<-late
		}
	})
	putExit(t, dir, exitID("a"), "0")
	await(t, exits, "the first end", func(e Exit) bool { return e.ID == exitID("a") && !e.Unread })
	putExit(t, dir, exitID("b"), "0")
	if err := os.Remove(filepath.Join(dir, exitID("b"))); err != nil {
		t.Fatal(err)
	}
	close(late)
	await(t, exits, "an end whose file is gone", func(e Exit) bool { return e.ID == exitID("b") && e.Unread })
}

// What ended before the watch was there, and left no file, is nobody's to tell: the listener must
// look for itself.
func TestExitsUnheard(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exits")
	exits := make(chan Exit, 100)
	watched(t, dir, func(e Exit) { exits <- e })
	await(t, exits, "the absence of the directory", missed)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	await(t, exits, "the beginning of the watch", missed)
	putExit(t, dir, exitID("a"), "0")
	await(t, exits, "an end", func(e Exit) bool { return e.ID == exitID("a") && e.Code == 0 })
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	await(t, exits, "another watch", missed)
}

func TestExitsOverflow(t *testing.T) {
	buf := make([]byte, unix.SizeofInotifyEvent)
	binary.NativeEndian.PutUint32(buf[4:], unix.IN_Q_OVERFLOW)
	var told []Exit
	handleEvents(buf, t.TempDir(), func(e Exit) { told = append(told, e) })
	if len(told) != 1 || !missed(told[0]) {
		t.Errorf("told %v", told)
	}
}

func TestWatchExits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exits")
	exits := make(chan Exit, 100)
	watched(t, dir, func(e Exit) { exits <- e })
	next := func(want Exit) {
		t.Helper()
		await(t, exits, "the end of "+want.ID, func(e Exit) bool {
			return e.ID == want.ID && e.Code == want.Code && e.Unread == want.Unread && time.Since(e.At) < time.Minute
		})
	}
	mkdir := func() {
		t.Helper()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mkdir() // it was not there at first
	putExit(t, dir, exitID("a"), "7")
	next(Exit{ID: exitID("a"), Code: 7})
	putExit(t, dir, "an-exec-session", "1")
	putExit(t, dir, exitID("b"), "not a number")
	next(Exit{ID: exitID("b"), Unread: true})
	putExit(t, dir, exitID("c"), "137\n")
	next(Exit{ID: exitID("c"), Code: 137})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	mkdir() // it came back
	putExit(t, dir, exitID("d"), "0")
	next(Exit{ID: exitID("d")})
}
