package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/lab"
	"github.com/podman-swarm/podman-swarm/internal/state/space"
)

// smallDisk mounts a file system of 32 MB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves about so many bytes free.
func fill(t *testing.T, dir string, leave uint64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	free := st.Bavail * uint64(st.Bsize)
	if free <= leave {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, free-leave), 0o600); err != nil && !space.Is(err) {
		t.Fatal(err)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
}

// eventually retries a write that the full disk refused a moment ago.
func eventually(t *testing.T, s *Store, key, val string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, err := s.Apply(ctx, Write{Key: key, Value: []byte(val), Expect: Any})
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("writes do not come back: %v", err)
		}
	}
}

// Below MinFree writes are refused, reads go on, and room brings them back.
func TestNearlyFullDisk(t *testing.T) {
	disk := smallDisk(t)
	s := open(t, Config{Dir: filepath.Join(disk, "state"), MinFree: 8 << 20})
	put(t, s, "/a", "1")
	fill(t, disk, 4<<20)
	pause(t.Context(), 2*space.Interval)
	_, err := s.Apply(t.Context(), Write{Key: "/a", Value: []byte("2"), Expect: Any})
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("write to a full disk: %v, want ErrNoSpace", err)
	}
	if err := s.Barrier(t.Context()); err != nil || value(s, "/a") != "1" {
		t.Fatalf("read from a full disk: %q, %v", value(s, "/a"), err)
	}
	empty(t, disk)
	eventually(t, s, "/a", "3")
}

// A full disk stops nobody from reading: a replica that knows no leader waits for one, and does not ask
// without a pause.
func TestReadsOnAFullDiskWaitForALeader(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.freeze = true
		c.first(3)
		c.load(20, 0, 1, 2)
		s := c.nodes[name((c.leader()+1)%3)].get()
		s.space.Min = math.MaxUint64
		c.net.Cut(func(string, string) bool { return true })
		elapse(5 * time.Second) // until gossip knows
		if _, err := s.Apply(c.t.Context(), Write{Key: "/full", Expect: Any}); !errors.Is(err, ErrNoSpace) {
			c.t.Errorf("write: %v, want ErrNoSpace", err)
		}
		s.present.Store(false)
		ctx, end := context.WithTimeout(c.t.Context(), time.Second)
		defer end()
		if err := s.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
			c.t.Errorf("ready without a leader: %v", err)
		}
		time.AfterFunc(time.Second, func() { c.net.Cut(nil) })
		if err := s.Barrier(c.t.Context()); err != nil {
			c.t.Errorf("read: %v", err)
		}
	})
}

// Without the guard the log itself runs out of space, again and again; nothing acknowledged is
// lost, and the store comes back without a restart.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t)
	cfg := Config{Dir: filepath.Join(disk, "state"), Lab: lab.Lab{Segment: 256 << 10}}
	s := open(t, cfg)
	want := map[string]string{}
	for round := range 3 {
		fill(t, disk, 1<<20)
		var err error
		for i := 0; err == nil; i++ {
			key, val := fmt.Sprintf("/%d/%d", round, i), string(bytes.Repeat([]byte{'a' + byte(round)}, 50<<10))
			if _, err = s.Apply(t.Context(), Write{Key: key, Value: []byte(val), Expect: Any}); err == nil {
				want[key] = val
			}
		}
		if !errors.Is(err, ErrNoSpace) {
			t.Fatalf("round %d: %v, want ErrNoSpace", round, err)
		}
		for k, v := range want {
			if value(s, k) != v {
				t.Fatalf("round %d: %s cannot be read while the disk is full", round, k)
			}
		}
		if round == 1 { // also across a restart on the full disk
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, cfg)
		}
		for k, v := range want {
			if value(s, k) != v {
				t.Fatalf("round %d: %s is lost", round, k)
			}
		}
		empty(t, disk)
		eventually(t, s, "/after", "x")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	for k, v := range want {
		if value(s, k) != v {
			t.Fatalf("%s is lost", k)
		}
	}
}
