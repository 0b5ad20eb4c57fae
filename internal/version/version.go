// Package version tells which Podman Swarm this binary is and which Kubernetes it speaks.
package version

import "runtime/debug"

// Kubernetes is the upstream release whose API and controllers are linked in.
const Kubernetes = "v1.37.2"

// release is set by the linker (-X); empty in a plain `go build`.
var release string //nolint:gochecknoglobals // the linker can only write variables

// Swarm returns the release of Podman Swarm, or "dev" with the commit for a plain `go build`.
func Swarm() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
