package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// bootID tells one boot of the machine from another by a marker below dir, which must not survive
// a boot. The kernel's own boot_id will not do: containers and lab hosts share it with their host.
//
// at is when the marker was made, shortly after the boot.
func bootID(dir string) (id string, at time.Time, booted bool, err error) {
	path := filepath.Join(dir, "boot-id")
	data, err := os.ReadFile(path) //nolint:gosec // our own file
	if id = strings.TrimSpace(string(data)); err == nil && id != "" {
		st, err := os.Stat(path)
		if err != nil {
			return "", at, false, fmt.Errorf("boot marker: %w", err)
		}
		return id, st.ModTime(), false, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", at, false, fmt.Errorf("boot marker: %w", err)
	}
	id = rand.Text()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", at, false, fmt.Errorf("boot marker: %w", err)
	}
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", at, false, fmt.Errorf("boot marker: %w", err)
	}
	return id, time.Now(), true, nil
}
