//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// newHost returns the host this run tests, as scripts/e2e describes it.
func newHost() (*lab.Host, error) {
	name := os.Getenv("SWARM_E2E_HOST")
	if name == "" {
		return nil, fmt.Errorf("SWARM_E2E_HOST is not set: run these tests by `make e2e`")
	}
	return lab.New("../..", name, strings.Fields(os.Getenv("SWARM_E2E_FLAGS"))...)
}

// psctl runs kubectl on the host with the admin kubeconfig; a failure ends the test.
func psctl(t *testing.T, args ...string) string {
	t.Helper()
	return psctlIn(t, "", args...)
}

// psctlIn is psctl with something on standard input.
func psctlIn(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, errOut, err := machine.Psctl(t.Context(), stdin, args...)
	if err != nil {
		t.Fatalf("psctl %s: %v\n%s%s", strings.Join(args, " "), err, out, errOut)
	}
	return out
}

// rounds says how often to repeat something expensive: scripts/e2e asks for all of it on one rootful
// and one rootless host, and for a few on the others.
func rounds(all, few int) int {
	if os.Getenv("SWARM_E2E_FULL") == "1" {
		return all
	}
	return few
}

// startAgent starts the agent within a minute.
func startAgent(ctx context.Context, h *lab.Host) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return h.StartAgent(ctx)
}

// stopAgent sends the agent a signal and waits until it has gone.
func stopAgent(t *testing.T, h *lab.Host, sig syscall.Signal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := h.SignalAgent(ctx, sig); err != nil {
		t.Fatal(err)
	}
}

// keepRunning starts the agent again after a test that failed while there was none.
func keepRunning(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if len(machine.Pids(agentProcess)) > 0 {
			return
		}
		if err := startAgent(background(), machine); err != nil {
			t.Errorf("no agent runs after the test: %v", err)
		}
	})
}

const agentProcess = "podman-swarm agent"

// background outlives the test: for what runs in its cleanup.
func background() context.Context { return context.Background() }

// eventually polls until check returns nil, or fails the test with the last error.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	var err error
	for {
		if err = check(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// namespace makes a namespace for the test and removes it, with everything in it, at the end.
func namespace(t *testing.T) string {
	t.Helper()
	ns := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	psctl(t, "create", "namespace", ns)
	t.Cleanup(func() {
		if out, errOut, err := machine.Psctl(background(), "", "delete", "namespace", ns, "--wait=false"); err != nil {
			t.Errorf("delete namespace: %v %s%s", err, out, errOut)
		}
	})
	return ns
}

func contains(t *testing.T, what, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%s: %q is missing in:\n%s", what, want, got)
		}
	}
}

// shows is contains for what comes in a moment: events are recorded, and containers print and listen,
// after a pod is Ready.
func shows(t *testing.T, what string, ask func() (string, error), wants ...string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		got, err := ask()
		for _, want := range wants {
			if err == nil && !strings.Contains(got, want) {
				err = fmt.Errorf("%s: %q is missing in:\n%s", what, want, got)
			}
		}
		return err
	})
}

// asking runs kubectl for shows.
func asking(t *testing.T, args ...string) func() (string, error) {
	t.Helper()
	return func() (string, error) {
		out, errOut, err := machine.Psctl(t.Context(), "", args...)
		return out, wrap(err, errOut)
	}
}

func wrap(err error, text string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", err, text)
}
