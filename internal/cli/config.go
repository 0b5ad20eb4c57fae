package cli

import (
	"os"
	"path/filepath"
)

// Environment is what psctl reads of its surroundings; tests bring their own.
type Environment struct {
	Home     string
	Getenv   func(string) string
	Readable func(path string) bool
}

// HostEnvironment is the environment of this process.
func HostEnvironment() Environment {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // no home directory: only explicit settings are used
	}
	return Environment{Home: home, Getenv: os.Getenv, Readable: readable}
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// kubeconfig returns the file psctl should use instead of kubectl's default, "" when the default
// rules ($KUBECONFIG, then ~/.kube/config) apply.
func (e Environment) kubeconfig() string {
	if e.Getenv("KUBECONFIG") != "" {
		return ""
	}
	var candidates []string
	if e.Home != "" {
		candidates = append(candidates, filepath.Join(e.Home, ".psctl", "config"))
	}
	for _, path := range append(candidates, e.nodeKubeconfigs()...) {
		if e.Readable(path) {
			return path
		}
	}
	return ""
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
