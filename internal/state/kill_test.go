package state

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/lab"
)

// childEnv makes the test binary a writer on the directory it names.
const childEnv = "PSW_STATE_CHILD"

func killConfig(dir string) Config {
	return Config{
		Dir: dir, NodeID: "n1", Log: quiet(), MinFree: 1, Lab: lab.Lab{Segment: 64 << 10},
		tune: func(c *raft.Config) {
			c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 100, 50, 5*time.Millisecond
		},
	}
}

// child writes with eight writers until it is killed, and says on stdout what was acknowledged.
func child(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, killConfig(dir))
	if err != nil {
		fmt.Fprintln(os.Stdout, "error", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "open", s.Revision(), 0)
	var wg sync.WaitGroup
	var out sync.Mutex
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/w%d/%d", w, i%4)
				val := fmt.Sprintf("%d-%d-%s", os.Getpid(), i, strings.Repeat("x", 200))
				res, err := s.Apply(ctx, Write{Key: key, Value: []byte(val), Expect: Any})
				if err != nil {
					fmt.Fprintln(os.Stdout, "error", err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Fprintln(os.Stdout, key, res.Revision, val[:strings.LastIndexByte(val, '-')])
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

type acked struct {
	rev   uint64
	value string
}

// kill -9 under eight writers, again and again: every acknowledged write is there, and revisions
// never repeat or go back.
func TestKillUnderWriters(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	last := map[string]acked{}
	top, total := uint64(0), 0
	for round := range rounds {
		n, newTop := killRound(t, dir, last, top)
		total += n
		s, err := Open(t.Context(), killConfig(dir))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if s.Revision() < newTop {
			t.Fatalf("round %d: revision %d, %d was acknowledged", round, s.Revision(), newTop)
		}
		top = s.Revision()
		v := s.View()
		for key, want := range last {
			e, ok := v.Get(key)
			if !ok || e.ModRevision < want.rev || e.ModRevision == want.rev && !strings.HasPrefix(string(e.Value), want.value+"-") {
				t.Fatalf("round %d: %s is %+v, acknowledged was %+v", round, key, e, want)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if total < rounds*8 {
		t.Errorf("only %d writes were acknowledged in %d rounds", total, rounds)
	}
	t.Logf("%d acknowledged writes, revision %d", total, top)
}

func killRound(t *testing.T, dir string, last map[string]acked, top uint64) (n int, newTop uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	newTop = top
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var key, val string
		var rev uint64
		if _, err := fmt.Sscan(lines.Text(), &key, &rev, &val); err != nil || key == "error" {
			if key == "error" {
				t.Fatalf("child: %s", lines.Text())
			}
			continue // the line that the kill cut off
		}
		if key == "open" {
			if rev < top {
				t.Fatalf("the child opened at revision %d, %d was there", rev, top)
			}
			time.AfterFunc(time.Duration(5+rand.IntN(40))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			continue
		}
		if rev <= top || seen[rev] {
			t.Fatalf("revision %d was given out again (newest before: %d)", rev, top)
		}
		seen[rev] = true
		n++
		newTop = max(newTop, rev)
		if last[key].rev < rev {
			last[key] = acked{rev, val}
		}
	}
	_ = cmd.Wait() // killed
	return n, newTop
}
