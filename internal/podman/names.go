package podman

import (
	"fmt"
	"regexp"
	"strings"
)

// reference is the grammar of distribution's image references, without its length limits.
var reference = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:\[\]/-]*?[a-zA-Z0-9](:[\w][\w.-]{0,127})?(@sha256:[a-f0-9]{64})?$`)

var imageID = regexp.MustCompile(`^(sha256:)?[a-f0-9]{64}$`)

func isID(s string) bool { return imageID.MatchString(s) }

// split takes a reference apart; domain is empty for a short name.
func split(ref string) (domain, path, tag, digest string, err error) {
	if !reference.MatchString(ref) && len(ref) != 1 {
		return "", "", "", "", fmt.Errorf("invalid image reference %q", ref)
	}
	path, digest, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		path, tag = path[:i], path[i+1:]
	}
	if first, rest, ok := strings.Cut(path, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		domain, path = first, rest
	}
	if path == "" || path != strings.ToLower(path) {
		return "", "", "", "", fmt.Errorf("invalid image reference %q: repository name must be lowercase", ref)
	}
	return domain, path, tag, digest, nil
}

func join(domain, path, tag, digest string) string {
	if domain == "docker.io" || domain == "index.docker.io" {
		domain = "docker.io"
		if !strings.Contains(path, "/") {
			path = "library/" + path
		}
	}
	switch {
	case digest != "": // Podman refuses a tag beside a digest; the digest decides anyway
		return domain + "/" + path + "@" + digest
	case tag == "":
		tag = "latest"
	}
	return domain + "/" + path + ":" + tag
}

// LocalNames are the full names under which a Kubernetes image name may be on this machine, best first. An ID is its
// own name.
func LocalNames(ref string) ([]string, error) {
	if isID(ref) {
		return []string{ref}, nil
	}
	domain, path, tag, digest, err := split(ref)
	if err != nil {
		return nil, err
	}
	if domain != "" {
		return []string{join(domain, path, tag, digest)}, nil
	}
	return []string{join("docker.io", path, tag, digest), join("localhost", path, tag, digest)}, nil
}

// PullName is the one full name that a Kubernetes image name is pulled by: Podman's short-name search, which may ask
// several registries, is never used.
func PullName(ref string) (string, error) {
	domain, path, tag, digest, err := split(ref)
	if err != nil {
		return "", err
	}
	if domain == "" {
		domain = "docker.io"
	}
	return join(domain, path, tag, digest), nil
}
