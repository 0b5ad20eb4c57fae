package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

// completePath appends the directories of administration programs, which the PATH of ordinary users
// lacks on Debian: nft is there.
func completePath() {
	path := os.Getenv("PATH")
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if !strings.Contains(":"+path+":", ":"+dir+":") {
			path += ":" + dir
		}
	}
	_ = os.Setenv("PATH", path) // fails for a NUL byte only
}

// preflight names every program that is missing, with the package that brings it.
func preflight(rootless bool) error {
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

// portsFree refuses addresses that another program listens on. Their users would find out too, but
// only after the pod network was made.
func portsFree(ctx context.Context, cfg Config) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.APIAddr)
	if err != nil {
		return fmt.Errorf("--api-addr: %w", err)
	}
	if err := l.Close(); err != nil {
		return err
	}
	w, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.BindAddr)
	if err != nil {
		return fmt.Errorf("--bind-addr: %w", err)
	}
	return w.Close()
}
