//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// machine is the host under test; TestMain makes it and its agent before any test.
var machine *lab.Host

func TestMain(m *testing.M) {
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func testMain(m *testing.M) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	h, err := newHost()
	if err != nil {
		return 1, err
	}
	machine = h
	if err := h.Add(ctx); err != nil {
		return 1, err
	}
	if os.Getenv("SWARM_E2E_KEEP") == "" {
		defer h.Remove(context.Background())
	}
	if err := h.StartAgent(ctx); err != nil {
		return 1, err
	}
	code := m.Run()
	stop, cancelStop := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancelStop()
	if err := h.SignalAgent(stop, syscall.SIGTERM); err != nil {
		return 1, err
	}
	return code, nil
}
