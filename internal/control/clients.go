package control

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// agent begins every User-Agent. The API server makes the part before the slash the manager of the
// fields that a controller sets; tools know it by upstream's name.
const agent = "kube-controller-manager/podman-swarm/"

// clients makes clients that act as the user of the configuration: the process itself.
type clients struct{ rest *rest.Config }

func (c clients) config(name string) *rest.Config {
	config := rest.CopyConfig(c.rest)
	config.UserAgent = agent + name
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	// The server is in this process: whoever is throttled here waits for nobody's good.
	config.QPS, config.RateLimiter = -1, nil
	return config
}

// DiscoveryClient returns a client that asks for the kinds served.
func (c clients) DiscoveryClient(name string) (discovery.DiscoveryInterface, error) {
	client, err := discovery.NewDiscoveryClientForConfig(c.config(name))
	if err != nil {
		return nil, fmt.Errorf("make discovery client for %s: %w", name, err)
	}
	return client, nil
}

// client returns a client that acts as the process.
func (c clients) client(name string) (kubernetes.Interface, error) {
	return newClient(name, c.config(name))
}

func newClient(name string, config *rest.Config) (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client for %s: %w", name, err)
	}
	return client, nil
}

// impersonating makes clients that act under the controller's own service account, like an upstream
// control plane set up by kubeadm: what a controller may do is bounded by its cluster role, and audit
// and admission see who acts. No token is involved.
type impersonating struct{ clients }

// Config returns the configuration of the controller's clients.
func (i impersonating) Config(name string) (*rest.Config, error) {
	config := i.config(name)
	config.Impersonate = rest.ImpersonationConfig{UserName: serviceaccount.MakeUsername("kube-system", name)}
	return config, nil
}

// Client returns a client of the controller.
func (i impersonating) Client(name string) (kubernetes.Interface, error) {
	config, err := i.Config(name)
	if err != nil {
		return nil, err
	}
	return newClient(name, config)
}

// ConfigOrDie is part of upstream's interface; Config cannot fail.
func (i impersonating) ConfigOrDie(name string) *rest.Config {
	config, err := i.Config(name)
	must(err)
	return config
}

// ClientOrDie is part of upstream's interface.
func (i impersonating) ClientOrDie(name string) kubernetes.Interface {
	client, err := i.Client(name)
	must(err)
	return client
}

// DiscoveryClientOrDie is part of upstream's interface.
func (i impersonating) DiscoveryClientOrDie(name string) discovery.DiscoveryInterface {
	client, err := i.DiscoveryClient(name)
	must(err)
	return client
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
