package image

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// defaultRegistry is the name under which docker keeps Docker Hub's credentials.
const defaultRegistry = "index.docker.io"

type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

// Credentials returns what the pull secrets hold for an image, the most specific entry first, by
// upstream's rules: host with globs per label, port exact, path as a prefix. Secrets that cannot be
// read are passed over, as a kubelet does.
func Credentials(secrets []corev1.Secret, ref string) []podman.Auth {
	keys := map[string][]podman.Auth{}
	for i := range secrets {
		for registry, e := range entries(&secrets[i]) {
			auth, ok := e.auth()
			if key := registryKey(registry); ok && key != "" && !slices.Contains(keys[key], auth) {
				keys[key] = append(keys[key], auth)
			}
		}
	}
	order := make([]string, 0, len(keys))
	for k := range keys {
		order = append(order, k)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(order)))
	name, err := podman.PullName(ref)
	if err != nil {
		return nil
	}
	var out []podman.Auth
	for _, k := range order {
		if matches(k, name) {
			out = append(out, keys[k]...)
		}
	}
	if len(out) == 0 && strings.HasPrefix(name, "docker.io/") {
		out = keys[defaultRegistry]
	}
	return out
}

func entries(s *corev1.Secret) map[string]entry {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var f struct {
			Auths map[string]entry `json:"auths"`
		}
		if json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &f) == nil {
			return f.Auths
		}
	case corev1.SecretTypeDockercfg:
		var f map[string]entry
		if json.Unmarshal(s.Data[corev1.DockerConfigKey], &f) == nil {
			return f
		}
	}
	return nil
}

func (e entry) auth() (podman.Auth, bool) {
	a := podman.Auth{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken}
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			raw, err = base64.RawStdEncoding.DecodeString(e.Auth)
		}
		user, pass, ok := strings.Cut(string(raw), ":")
		if err != nil || !ok {
			return a, false
		}
		a.Username, a.Password = user, strings.TrimRight(pass, "\x00")
	}
	return a, a.Username != "" || a.IdentityToken != ""
}

// registryKey brings an entry's name into the form host[:port][/path].
func registryKey(registry string) string {
	if !strings.HasPrefix(registry, "https://") && !strings.HasPrefix(registry, "http://") {
		registry = "https://" + registry
	}
	u, err := url.Parse(registry)
	if err != nil {
		return ""
	}
	p := u.Path
	if strings.HasPrefix(p, "/v2/") || strings.HasPrefix(p, "/v1/") {
		p = p[3:]
	}
	if p == "/" {
		p = ""
	}
	return u.Host + p
}

func matches(key, name string) bool {
	k, err := url.Parse("https://" + key)
	if err != nil {
		return false
	}
	// The name's tag or digest is no part of its path.
	host, rest, _ := strings.Cut(name, "/")
	t, err := url.Parse("https://" + host)
	if err != nil || k.Port() != t.Port() || !strings.HasPrefix("/"+rest, k.Path) {
		return false
	}
	globs, parts := strings.Split(k.Hostname(), "."), strings.Split(t.Hostname(), ".")
	if len(globs) != len(parts) {
		return false
	}
	for i := range globs {
		if ok, err := path.Match(globs[i], parts[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
