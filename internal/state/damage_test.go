package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/lab"
)

// Damage to any file of a real store: an error that names a file and the way back, or nothing is
// lost. Package disk tries every kind of place; this proves that Open passes it on.
func TestDamagedStoreDoesNotOpen(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Lab: lab.Lab{Segment: 8 << 10}, tune: func(c *raft.Config) {
		c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 20, 10, 5*time.Millisecond
	}}
	s := open(t, cfg)
	for i := range 200 {
		put(t, s, "/k/"+string(rune('a'+i%26)), strings.Repeat("v", 50+i))
	}
	rev := s.Revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused, fine := 0, 0
	try := func(path string, damage func(copied string) error) {
		t.Helper()
		scratch := cfg
		scratch.Dir = t.TempDir()
		if err := os.CopyFS(scratch.Dir, os.DirFS(cfg.Dir)); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(scratch.Dir, strings.TrimPrefix(path, cfg.Dir))
		if err := damage(copied); err != nil {
			t.Fatal(err)
		}
		if openDamaged(t, scratch, copied, rev) {
			fine++
		} else {
			refused++
		}
	}
	for _, path := range stateFiles(t, cfg.Dir) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int{0, 20, 50, 100, len(good) / 2, len(good) - 1} {
			if off >= len(good) {
				continue
			}
			flipped := bytes.Clone(good)
			flipped[off] ^= 0xff
			for _, bad := range [][]byte{flipped, good[:off]} {
				try(path, func(name string) error { return os.WriteFile(name, bad, 0o600) })
			}
		}
		try(path, os.Remove)
	}
	if refused < 30 {
		t.Errorf("only %d damages were refused, %d were harmless", refused, fine)
	}
	t.Logf("%d damages refused, %d harmless", refused, fine)
}

func stateFiles(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// openDamaged reports whether the store opens, and then with everything.
func openDamaged(t *testing.T, cfg Config, path string, rev uint64) bool {
	t.Helper()
	s, err := tryOpen(t, cfg)
	var damaged *disk.DamageError
	switch {
	case err == nil:
		defer s.Close()
		if s.Revision() != rev || s.View().Count("", "") != 26 {
			t.Fatalf("%s: opens at revision %d with %d keys, want %d with 26", path, s.Revision(), s.View().Count("", ""), rev)
		}
		return true
	case strings.Contains(err.Error(), "newer version"):
	case !errors.As(err, &damaged) || !strings.HasPrefix(path, damaged.File) || !strings.Contains(err.Error(), "Way back"):
		t.Fatalf("%s: %v", path, err)
	}
	return false
}

func TestSecondStoreIsRefused(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	open(t, cfg)
	if _, err := tryOpen(t, cfg); !errors.Is(err, disk.ErrLocked) || !strings.Contains(err.Error(), cfg.Dir) {
		t.Fatalf("second store on a directory: %v", err)
	}
}

// The log fails while the replica runs, and is damaged when it is read again: the replica is made anew, as
// at a start.
func TestDamageWhileRunningIsMended(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(3)
		c.load(50, 0, 1, 2)
		i := c.leader()
		s := c.nodes[name(i)].get()
		before := s.Status().Server
		damageLog(t, c.nodes[name(i)].dir)
		s.instance().Stores.Break(errors.New("injected: EIO"))
		c.load(5, (i+1)%3)
		t.Logf("whole after %v", c.steady(3))
		if s.Status().Server == before {
			t.Error("it votes under its old name")
		}
		c.load(5, i)
		c.equal()
	})
}

// One of two is damaged while it runs: it does not count as alive, so the other goes on without it.
func TestDamageOfOneOfTwoWhileRunningIsMended(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(2)
		c.load(50, 0, 1)
		damageLog(t, c.nodes[name(1)].dir)
		c.nodes[name(1)].get().instance().Stores.Break(errors.New("injected: EIO"))
		t.Logf("written after %v", c.write(0, "/alone", "x", 20*time.Second))
		t.Logf("whole after %v", c.steady(2))
		c.load(5, 1)
		c.equal()
	})
}

// A replica that went on alone is damaged before it met the others again: what only its memory holds gets to
// them, and what a client reads there never goes back.
func TestDamageOfOneThatWentOnAloneIsMended(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(3)
		c.load(20, 0, 1, 2)
		n := c.nodes[name(2)]
		c.net.Split(n.name)
		c.load(5, 0)
		s := n.get()
		c.within(20*time.Second, "a takeover", func() bool { return len(s.Status().Replicas) == 1 && s.instance().Leads() })
		c.load(30, 2) // so that the damage is not at the end
		alone := s.Status()
		damageLog(t, n.dir)
		s.instance().Stores.Break(errors.New("injected: EIO"))
		elapse(time.Minute)
		if got := s.Status(); got.Revision != alone.Revision {
			t.Errorf("nobody is there, and it shows revision %d, not %d", got.Revision, alone.Revision)
		}
		c.net.Cut(nil)
		t.Logf("whole after %v", c.steady(3))
		c.load(5, 2)
		c.equal()
	})
}

// The founder's damaged state was set aside, and the disk was full or power was lost before a new copy was
// begun. The founder, which is told to join nothing, follows the others, and begins nothing of its own.
func TestFounderWhoseStateWasSetAsideFollowsTheOthers(t *testing.T) {
	for _, full := range []string{"state", "meta"} { // from when on: before it is set aside, and after that
		simulate(t, true, func(c *sim) {
			c.first(3)
			c.load(50, 0, 1, 2)
			want := c.nodes[name(1)].get().Status().Lineage.ID
			dir := c.nodes[name(0)].dir
			note := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".joins")
			c.kill(0)
			c.steady(2)
			damageLog(c.t, dir)
			c.probe = func(op disk.Op, file string) error {
				if op == disk.Write && (full == "state" || filepath.Base(file) == full) {
					return syscall.ENOSPC
				}
				return nil
			}
			if _, err := c.tryStart(0, ""); !errors.Is(err, syscall.ENOSPC) {
				c.t.Fatalf("start on a full disk: %v", err)
			}
			_, err := os.Stat(filepath.Join(dir, "current"))
			if aside := errors.Is(err, fs.ErrNotExist); aside != (full == "meta") {
				c.t.Fatalf("full at %s: set aside: %v", full, aside)
			}
			if _, err := os.Stat(note); err == nil != (full == "meta") {
				c.t.Errorf("full at %s: the note: %v", full, err)
			}
			c.net.Kill(name(0))
			c.probe = nil
			s := c.start(0, "")
			c.steady(3)
			if got := s.Status().Lineage.ID; got != want {
				c.t.Errorf("it follows %s, the others %s", got, want)
			}
			c.load(5, 0)
			c.equal()
			if _, err := os.Stat(note); !errors.Is(err, fs.ErrNotExist) {
				c.t.Errorf("the note is still there: %v", err)
			}
		})
	}
}

// While a replica's disk does not let Raft start again, others go on calling: nothing piles up.
func TestNothingPilesUpWhileTheDiskIsNotRead(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(3)
		c.load(50, 0, 1, 2)
		i := (c.leader() + 1) % 3
		s := c.nodes[name(i)].get()
		stray := filepath.Join(c.nodes[name(i)].dir, "raft", s.Status().Lineage.ID, "log", "stray")
		if err := os.WriteFile(stray, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.instance().Stores.Break(errors.New("injected: EIO"))
		elapse(time.Minute)
		before := runtime.NumGoroutine()
		elapse(time.Hour)
		if now := runtime.NumGoroutine(); now > before+10 {
			t.Errorf("%d goroutines, %d an hour ago", now, before)
		}
		if err := os.Remove(stray); err != nil {
			t.Fatal(err)
		}
		t.Logf("whole after %v", c.steady(3))
		c.equal()
	})
}
