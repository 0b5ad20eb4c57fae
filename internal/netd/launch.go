package netd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// launchTimeout covers podman unshare making its user namespace on a busy machine.
const launchTimeout = 30 * time.Second

// launch starts the helper and returns the connection to it. What was started in between, podman
// unshare too, has ended when it returns.
func launch(ctx context.Context, cfg Config) (*wire.Frames, error) {
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, err
	}
	// One message per packet: no framing, and a descriptor cannot part from its message.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "helper"), os.NewFile(uintptr(pair[1]), "agent")
	defer func() { _ = ours.Close() }() // wire.NewFrames has its own
	defer func() { _ = theirs.Close() }()
	if err := runLauncher(ctx, cfg, theirs); err != nil {
		return nil, fmt.Errorf("launch the network helper: %w", err)
	}
	return wire.NewFrames(ours)
}

func runLauncher(ctx context.Context, cfg Config, socket *os.File) error {
	argv := append([]string{}, cfg.Helper...)
	if cfg.Rootless {
		podman, err := wire.Find("podman")
		if err != nil {
			return err
		}
		argv = append([]string{podman, "unshare"}, argv...)
	}
	argv = append(argv, "detach", cfg.RunDir)
	ctx, cancel := context.WithTimeout(ctx, launchTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var words bytes.Buffer
	cmd.Stdin, cmd.Stderr = socket, &words
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, lastLines(words.Bytes()))
	}
	return nil
}

// lastLines returns the end of a program's words as one line.
func lastLines(b []byte) string {
	lines := strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
