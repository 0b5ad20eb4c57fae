package reach

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Client returns a client of the server that a configuration names.
func Client(cfg *rest.Config) (*swarm.Client, error) {
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client configuration: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client configuration: %w", err)
	}
	return swarm.NewClient(c, base.String()), nil
}

// File returns a client of the server that a kubeconfig names.
func File(path string) (*swarm.Client, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return Client(cfg)
}
