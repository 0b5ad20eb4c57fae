package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// CompletePath appends the directories of administration programs, which the PATH of ordinary users
// lacks on Debian: nft is there.
func CompletePath() {
	path := os.Getenv("PATH")
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if !strings.Contains(":"+path+":", ":"+dir+":") {
			path += ":" + dir
		}
	}
	_ = os.Setenv("PATH", path) // fails for a NUL byte only
}

// Programs names every program that is missing, with the package that brings it.
func Programs(rootless bool) error {
	needed := map[string]string{"podman": "podman", "nft": "nftables"}
	if rootless {
		needed["newuidmap"] = "uidmap (Debian, Ubuntu) or shadow-utils (Fedora)"
	}
	var errs []error
	for _, program := range []string{"podman", "nft", "newuidmap"} {
		pkg, ok := needed[program]
		if !ok {
			continue
		}
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("%s is not installed: install the package %s", program, pkg))
		}
	}
	return errors.Join(errs...)
}

// PortsFree refuses addresses that another program listens on. Their users would find out too, but
// only after the pod network was made.
func PortsFree(ctx context.Context, api, bind string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", api)
	if err != nil {
		return fmt.Errorf("--api-addr: %w", err)
	}
	if err := l.Close(); err != nil {
		return err
	}
	w, err := (&net.ListenConfig{}).Listen(ctx, "tcp", bind)
	if err != nil {
		return fmt.Errorf("--bind-addr: %w", err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	u, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", bind)
	if err != nil {
		return fmt.Errorf("--bind-addr: %w", err)
	}
	return u.Close()
}

// MachineStops tells whether the whole machine goes down; it asks systemd, where there is one.
func MachineStops() bool {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) //nolint:forbidigo // what it is asked for has just ended
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "is-system-running").Output()
	// Its exit code says running or not; "stopping" is one of the words for not.
	return strings.TrimSpace(string(out)) == "stopping" && err != nil
}
