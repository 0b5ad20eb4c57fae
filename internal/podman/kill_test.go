package podman

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A process of the tests that plays conmon: with this variable it waits as long as it says, starts the
// session's sleeper and ends when that has ended; the sleeper itself waits to be told.
const playConmon = "SWARM_TEST_PLAY_CONMON"

func conmon(t *testing.T, session, mode string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPlayConmon$", "--", "-u", session)
	c.Env = append(os.Environ(), playConmon+"="+mode)
	return c
}

// TestPlayConmon is no test of its own.
func TestPlayConmon(t *testing.T) {
	mode := os.Getenv(playConmon)
	switch mode {
	case "":
		t.Skip("only as a process of TestReapExec")
	case "sleeper":
		<-t.Context().Done() // never: a signal ends it
	default:
		delay, err := time.ParseDuration(mode)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(delay)
		_ = conmon(t, os.Args[len(os.Args)-1], "sleeper").Run() // ends by a signal
	}
}

// TestReapExec: the sleeper is found although it comes late, as on a busy machine, and although the
// caller has gone; a session without processes is not waited for.
func TestReapExec(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"caller": t.Context(), "caller-gone": gone} {
		t.Run(name, func(t *testing.T) {
			session := "session-" + name
			monitor := conmon(t, session, "400ms")
			if err := monitor.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- monitor.Wait() }()
			reapExec(ctx, session)
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Error("the session's processes are still there")
				_ = monitor.Process.Kill()
				<-ended
			}
		})
	}
	t.Run("nothing left", func(t *testing.T) {
		start := time.Now()
		reapExec(t.Context(), "session-of-nobody")
		if took := time.Since(start); took > exitWait/2 {
			t.Errorf("took %s", took)
		}
	})
}
