package wire

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// tool is a program the pod network needs, why, and the packages that bring it.
type tool struct {
	name string
	why  string
	pkg  string
}

// ErrNotFound says that something is not on this host.
var ErrNotFound = errors.New("not found")

// Missing names each program the pod network needs on this host and does not find, one error with
// one line each; nil when all are there.
func Missing(rootless bool) error {
	need := []tool{{"nft", "it programs the pod network's packet rules", "nftables"}}
	if rootless {
		need = append(need,
			tool{"podman", "its user namespace holds the pod network", "podman"},
			tool{
				"newuidmap", "Podman needs it to give an ordinary user a range of user ids",
				"uidmap (Debian, Ubuntu) or shadow-utils (Fedora)",
			})
	}
	var errs []error
	for _, t := range need {
		if _, err := Find(t.name); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing: %s; install the package %s", t.name, t.why, t.pkg))
		}
	}
	if _, _, err := FindOutlet(); rootless && err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Find looks for a program in PATH, then in the directories of system programs, which are not in
// an ordinary user's PATH on every distribution.
func Find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrNotFound)
}

// FindOutlet prefers slirp4netns: 4 MB against pasta's 22, present on Debian 12 and 13 alike, and
// it needs no interface of the host as a model.
func FindOutlet() (name, path string, err error) {
	for _, name := range []string{"slirp4netns", "pasta"} {
		if path, err := Find(name); err == nil {
			return name, path, nil
		}
	}
	return "", "", errors.New("slirp4netns and pasta are missing: one of them connects the pod network" +
		" of an ordinary user to the outside; install the package slirp4netns")
}
