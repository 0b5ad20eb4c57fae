package preflight

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// RuntimeDir is where the node keeps what a boot may lose: sockets, pinned namespaces, the mark that
// tells one boot from the next. It is below a directory that the system empties at boot, and its
// name is short, since socket paths are limited to 107 bytes. Two nodes on one machine have two.
func RuntimeDir(dataDir string, rootless bool) (string, error) {
	base := "/run"
	if rootless {
		if base = os.Getenv("XDG_RUNTIME_DIR"); base == "" {
			base = fmt.Sprintf("/run/user/%d", os.Geteuid())
		}
		if _, err := os.Stat(base); err != nil {
			return "", fmt.Errorf("runtime directory %s: %w: log in as this user (not by su), or run: loginctl enable-linger; without systemd: sudo install -d -m 700 -o %d %s",
				base, err, os.Geteuid(), base)
		}
		// Podman and everything below us must choose the same.
		if err := os.Setenv("XDG_RUNTIME_DIR", base); err != nil {
			return "", fmt.Errorf("runtime directory: %w", err)
		}
	}
	sum := sha256.Sum256([]byte(dataDir))
	dir := filepath.Join(base, "podman-swarm", hex.EncodeToString(sum[:4]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("runtime directory: %w", err)
	}
	return dir, nil
}
