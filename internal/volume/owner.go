package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// Direct is the Owner of a rootful node: ids of containers are ids of the host.
type Direct struct{}

// Apply implements Owner.
func (Direct) Apply(_ context.Context, changes []Change) error {
	for _, c := range changes {
		if c.UID >= 0 || c.GID >= 0 {
			if err := os.Lchown(c.Path, c.UID, c.GID); err != nil {
				return err
			}
		}
		if c.Mode == nil {
			continue
		}
		info, err := os.Lstat(c.Path)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		if err := os.Chmod(c.Path, *c.Mode); err != nil {
			return err
		}
	}
	return nil
}

// RemoveAll implements Owner.
func (Direct) RemoveAll(_ context.Context, path string) error { return os.RemoveAll(path) }

// Unshare is the Owner of a rootless node: it works in the user namespace of this user's containers, by
// one `podman unshare` (60 to 80 ms) per call, and only where the host's ids will not do.
type Unshare struct {
	// Command runs what follows it in that namespace; nil: podman unshare.
	Command []string
}

// Apply implements Owner.
func (u Unshare) Apply(ctx context.Context, changes []Change) error {
	// Id 0 of a container is this user, whose the files are already.
	foreign := func(c Change) bool { return c.UID > 0 || c.GID > 0 }
	if !slices.ContainsFunc(changes, foreign) {
		own := slices.Clone(changes)
		for i := range own {
			own[i].UID, own[i].GID = -1, -1
		}
		return Direct{}.Apply(ctx, own)
	}
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, c := range changes {
		if c.UID >= 0 || c.GID >= 0 {
			fmt.Fprintf(&script, "chown -h %s -- %s\n", ownerSpec(c), quote(c.Path))
		}
		if c.Mode != nil {
			fmt.Fprintf(&script, "test -h %[2]s || chmod %04[1]o -- %[2]s\n", unixMode(*c.Mode), quote(c.Path))
		}
	}
	return u.run(ctx, script.String())
}

// RemoveAll implements Owner. What this user may remove is removed without a process.
func (u Unshare) RemoveAll(ctx context.Context, path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return u.run(ctx, fmt.Sprintf("rm -rf -- %s\n", quote(path)))
}

func (u Unshare) run(ctx context.Context, script string) error {
	argv := u.Command
	if len(argv) == 0 {
		argv = []string{"podman", "unshare"}
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], "sh")...)
	cmd.Stdin = strings.NewReader(script)
	cmd.Dir = "/" // podman enters the directory, which its namespace may not let it
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// ownerSpec is owner and group as chown takes them; "1000:" would mean that user's login group.
func ownerSpec(c Change) string {
	switch {
	case c.GID < 0:
		return strconv.Itoa(c.UID)
	case c.UID < 0:
		return ":" + strconv.Itoa(c.GID)
	default:
		return strconv.Itoa(c.UID) + ":" + strconv.Itoa(c.GID)
	}
}

// quote makes one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// unixMode is a mode as chmod takes it.
func unixMode(m os.FileMode) uint32 {
	n := uint32(m.Perm())
	if m&os.ModeSetgid != 0 {
		n |= 0o2000
	}
	if m&os.ModeSticky != 0 {
		n |= 0o1000
	}
	return n
}
