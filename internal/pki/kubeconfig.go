package pki

import (
	"encoding/base64"
	"fmt"
)

// kubeconfig is one cluster, one user, one context, with everything embedded. Every value is
// base64, a URL or a fixed word, so nothing needs quoting beyond the quotes that are here.
const kubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: podman-swarm
  cluster:
    server: %q
    certificate-authority-data: %s
users:
- name: %q
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: podman-swarm
  context:
    cluster: podman-swarm
    user: %q
current-context: podman-swarm
`

// WriteKubeconfig stores at path (0600, atomically) a kubeconfig for the API server at the URL
// server with a fresh one-year certificate for user in groups. An administrator is user "admin"
// in group "system:masters". It believes every CA that this node believes now, and those in others (PEM).
func (a *Authority) WriteKubeconfig(path, server string, others []byte, user string, groups ...string) error {
	cert, key, err := a.ClientCert(user, groups...)
	if err != nil {
		return err
	}
	b64 := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(kubeconfig, server, b64(append(a.CAPEM(), others...)), user, b64(cert), b64(key), user)
	return WriteFile(path, []byte(text))
}
