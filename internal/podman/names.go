package podman

import (
	"fmt"
	"regexp"
	"strings"
)

// The parts of distribution's grammar of image references.
var (
	domainPart = regexp.MustCompile(`^(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?)(:[0-9]+)?$`)
	pathPart   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPart    = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)
	digestPart = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)
)

var imageID = regexp.MustCompile(`^(sha256:)?[a-f0-9]{64}$`)

func isID(s string) bool { return imageID.MatchString(s) }

// split takes a reference apart; domain is empty for a short name.
func split(ref string) (domain, path, tag, digest string, err error) {
	path, digest, hasDigest := strings.Cut(ref, "@")
	hasTag := false
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		path, tag, hasTag = path[:i], path[i+1:], true
	}
	if first, rest, ok := strings.Cut(path, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		domain, path = first, rest
	}
	switch {
	case path != strings.ToLower(path):
		err = fmt.Errorf("invalid image reference %q: repository name must be lowercase", ref)
	case !pathPart.MatchString(path), domain != "" && !domainPart.MatchString(domain),
		hasTag && !tagPart.MatchString(tag), hasDigest && !digestPart.MatchString(digest):
		err = fmt.Errorf("invalid image reference %q: invalid reference format", ref)
	}
	return domain, path, tag, digest, err
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
