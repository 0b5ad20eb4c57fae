package cli

import (
	"net/http"

	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// unset is the server that kubectl's configuration names when nothing else does.
const unset = "http://localhost:8080"

// refuse has requests fail with err where no server was named, by a flag either. kubectl would try unset and
// tell five times that nobody is there. What asks no server, as a dry run of the client, is not disturbed.
func refuse(flags *genericclioptions.ConfigFlags, err error) {
	flags.WithWrapConfigFn(func(c *rest.Config) *rest.Config {
		if c.Host == "" || c.Host == unset {
			klog.SetLogger(logr.Discard()) // discovery's own words about every attempt
			c.Wrap(func(http.RoundTripper) http.RoundTripper { return refusal{err} })
		}
		return c
	})
}

type refusal struct{ err error }

// RoundTrip implements http.RoundTripper.
func (r refusal) RoundTrip(*http.Request) (*http.Response, error) { return nil, r.err }
