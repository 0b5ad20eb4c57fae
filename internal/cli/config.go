package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Environment is what psctl reads of its surroundings; tests bring their own.
type Environment struct {
	Home     string
	Getenv   func(string) string
	Readable func(path string) bool
	// Denied tells that there is, or may be, a file that this user must not read.
	Denied func(path string) bool
}

// HostEnvironment is the environment of this process.
func HostEnvironment() Environment {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // no home directory: only explicit settings are used
	}
	return Environment{Home: home, Getenv: os.Getenv, Readable: readable, Denied: denied}
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func denied(path string) bool {
	f, err := os.Open(path)
	if err == nil {
		_ = f.Close() // only read
	}
	return errors.Is(err, fs.ErrPermission)
}

// kubeconfig returns the file psctl should use instead of kubectl's default, "" when the default
// rules ($KUBECONFIG, then ~/.kube/config) apply.
func (e Environment) kubeconfig() string {
	if e.Getenv("KUBECONFIG") != "" {
		return ""
	}
	for _, path := range e.candidates() {
		if e.Readable(path) {
			return path
		}
	}
	return ""
}

func (e Environment) candidates() []string {
	var candidates []string
	if e.Home != "" {
		candidates = append(candidates, filepath.Join(e.Home, ".psctl", "config"))
	}
	return append(candidates, e.nodeKubeconfigs()...)
}

// nowhere is the error of asking a server when nothing says which one; nil when something does.
func (e Environment) nowhere() error {
	if e.Getenv("KUBECONFIG") != "" || e.Getenv("PSCTL_SERVER") != "" || e.kubeconfig() != "" ||
		e.Getenv("KUBERNETES_SERVICE_HOST") != "" || e.Home != "" && e.Readable(filepath.Join(e.Home, ".kube", "config")) {
		return nil
	}
	for _, path := range e.candidates() {
		if e.Denied(path) {
			return fmt.Errorf("you may not read %s: ask its owner (sudo psctl), or copy it to ~/.psctl/config", path)
		}
	}
	return errors.New("no swarm is known here: begin one (podman-swarm init), or copy the admin.kubeconfig of one of its nodes to ~/.psctl/config")
}

// nodeKubeconfigs are the admin kubeconfigs that a node on this machine may have written: the
// rootful default data directory and the user's own.
func (e Environment) nodeKubeconfigs() []string {
	const file = "admin.kubeconfig"
	var paths []string
	if data := e.Getenv("XDG_DATA_HOME"); data != "" {
		paths = append(paths, filepath.Join(data, "podman-swarm", file))
	} else if e.Home != "" {
		paths = append(paths, filepath.Join(e.Home, ".local", "share", "podman-swarm", file))
	}
	return append(paths, filepath.Join("/var/lib/podman-swarm", file))
}
