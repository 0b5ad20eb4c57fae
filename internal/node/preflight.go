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

// portFree refuses an address that another program listens on. The API server would find out too,
// but only after the pod network was made.
func portFree(ctx context.Context, addr string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("--api-addr: %w", err)
	}
	return l.Close()
}
