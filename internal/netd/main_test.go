package netd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/helper"
)

const (
	// inside marks the child that runs the tests on a host of its own.
	inside = "NETD_TEST_INSIDE"
	// onHost lets root run the tests on the very host they are on, as the lab's hosts do.
	onHost = "NETD_TEST_ON_HOST"
)

// TestMain gives the tests a host of their own when they run as root: a network and a mount
// namespace. It is also the helper, when the tests start it as such.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "netd-helper" {
		if err := helper.Main(context.Background(), os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getuid() != 0 || os.Getenv(inside) != "" || os.Getenv(onHost) != "" {
		if os.Getenv(inside) != "" {
			if err := makeHost(); err != nil {
				fmt.Fprintln(os.Stderr, "make a host:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	default: // not allowed to: the pure tests still run
		os.Exit(m.Run())
	}
}

// makeHost prepares what a booted machine has: lo up, an interface to the world, shared mounts.
func makeHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, line := range []string{
		"link set lo up",
		"link add eth0 type veth peer name world",
		"addr add 10.99.0.1/24 dev eth0", "link set eth0 up", "link set world up",
		"route add default via 10.99.0.254",
	} {
		if out, err := exec.CommandContext(context.Background(), "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}

// testConfig is a node on this host: the tests' own when they are root, the real one for an
// ordinary user who has Podman. Everything is removed at the test's end.
func testConfig(tb testing.TB) Config {
	tb.Helper()
	rootless := os.Getuid() != 0
	if !rootless && os.Getenv(inside) == "" && os.Getenv(onHost) == "" {
		tb.Skip("root here may not make namespaces")
	}
	if err := Missing(rootless); err != nil {
		tb.Skip("a program is missing: " + strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	tb.Cleanup(func() { // registered first, so it looks last
		if _, bench := tb.(*testing.B); bench {
			return
		}
		if err := goleak.Find(); err != nil {
			tb.Error(err)
		}
	})
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	cfg := Config{
		Rootless: rootless, PodCIDR: netip.MustParsePrefix("10.244.7.0/24"), RunDir: filepath.Join(dir, "run"),
		Helper: []string{exe, "netd-helper", dir}, Log: slog.New(slog.NewTextHandler(tb.Output(), nil)),
	}
	tb.Cleanup(func() {
		if err := Destroy(context.WithoutCancel(tb.Context()), cfg); err != nil {
			tb.Errorf("Destroy: %v", err)
		}
		left, _ := os.ReadDir(cfg.RunDir)
		if len(left) > 0 {
			tb.Errorf("Destroy left %v", left)
		}
	})
	return cfg
}

func start(tb testing.TB, cfg Config) *Net {
	tb.Helper()
	n, err := Start(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(n.Close)
	return n
}

func add(tb testing.TB, n *Net, id string) Attachment {
	tb.Helper()
	a, err := n.Add(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// helperPIDs finds the helpers of a configuration.
func helperPIDs(tb testing.TB, cfg Config) []int {
	tb.Helper()
	var pids []int
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range names {
		b, _ := os.ReadFile(name)
		if strings.Contains(string(b), cfg.Helper[2]+"\x00serve") {
			var pid int
			if _, err := fmt.Sscanf(name, "/proc/%d/", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// inNet runs a program in the pod network's namespace and returns what it prints.
func inNet(tb testing.TB, cfg Config, args ...string) string {
	tb.Helper()
	if cfg.Rootless {
		args = append([]string{"podman", "unshare", "nsenter", "--net=" + cfg.setup().Home()}, args...)
	}
	var words strings.Builder
	cmd := exec.CommandContext(tb.Context(), args[0], args[1:]...)
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%v: %v: %s", args, err, words.String())
	}
	return string(out)
}
