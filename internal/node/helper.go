package node

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed embed
var embedded embed.FS

const helperName = "podman-swarm-netd"

// netdCommand returns the command line of the network helper. The helper is carried inside this
// binary (see embed/README.md) and unpacked into dir; without it, this binary plays the part.
func netdCommand(dir string) ([]string, error) {
	packed, err := embedded.ReadFile("embed/" + helperName + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find own executable: %w", err)
		}
		return []string{self, "netd"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", helperName, err)
	}
	path := filepath.Join(dir, helperName)
	if err := unpack(packed, path); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", helperName, err)
	}
	return []string{path}, nil
}

// unpack writes the helper unless the same bytes are there already: a running helper's file must
// not be written to.
func unpack(packed []byte, path string) error {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) { //nolint:gosec // our own file
		return nil
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o700); err != nil { //nolint:gosec // an executable
		return err
	}
	return os.Rename(tmp, path)
}
