package overwrite

import (
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

// Nobody's work is ever hidden; what hides is what is written again by itself.
func TestDerived(t *testing.T) {
	const (
		deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","uid":"1","resourceVersion":"7","generation":2,
			"annotations":{"deployment.kubernetes.io/revision":"2"}},"spec":{"replicas":2,"selector":null,"template":{"metadata":{},"spec":{"containers":null}}},"status":{"replicas":2}}`
		same = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","uid":"1","resourceVersion":"9","generation":3,
			"annotations":{"deployment.kubernetes.io/revision":"3"}},"spec":{"replicas":2,"selector":null,"template":{"metadata":{},"spec":{"containers":null}}},"status":{"replicas":1}}`
		scaled = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","uid":"1"},
			"spec":{"replicas":3,"selector":null,"template":{"metadata":{},"spec":{"containers":null}}}}`
		owned    = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","uid":"%","ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"2","controller":true}]}}`
		again    = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","uid":"3","ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"2","controller":true}]}}`
		bare     = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","uid":"4"}}`
		tainted  = `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","uid":"5"},"spec":{"taints":[{"key":"node.kubernetes.io/unreachable","effect":"NoExecute"}]}}`
		well     = `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","uid":"5"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`
		labelled = `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","uid":"5","labels":{"disk":"ssd"}}}`
		mine     = `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","uid":"5"},"spec":{"taints":[{"key":"dedicated","effect":"NoSchedule"}]}}`
		widget   = `{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"w","uid":"6"},"spec":{"a":1},"status":{"b":1}}`
		turned   = `{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"w","uid":"6"},"spec":{"a":1},"status":{"b":2}}`
		changed  = `{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"w","uid":"6"},"spec":{"a":2},"status":{"b":1}}`
		service  = `{"apiVersion":"v1","kind":"Service","metadata":{"name":"kubernetes","namespace":"default","uid":"7"}}`
		born     = `{"apiVersion":"v1","kind":"Service","metadata":{"name":"kubernetes","namespace":"default","uid":"8"}}`
		gone     = ""
	)
	for name, tc := range map[string]struct {
		key, kept, lost string
		want            bool
	}{
		"only status":                       {"/deployments/default/web", deployment, same, true},
		"the number of replicas":            {"/deployments/default/web", deployment, scaled, false},
		"another pod of a ReplicaSet":       {"/pods/default/web-1", owned, again, true},
		"a pod of a ReplicaSet was deleted": {"/pods/default/web-1", owned, gone, true},
		"a bare pod was deleted":            {"/pods/default/web-1", gone, bare, false},
		"a bare pod against a made one":     {"/pods/default/web-1", owned, bare, false},
		"a Deployment was deleted":          {"/deployments/default/web", gone, deployment, false},
		"a node is unreachable":             {"/minions/n1", well, tainted, true},
		"a node's label":                    {"/minions/n1", well, labelled, false},
		"a person's taint":                  {"/minions/n1", tainted, mine, false},
		"status of a custom resource":       {"/example.org/widgets/default/w", widget, turned, true},
		"a custom resource":                 {"/example.org/widgets/default/w", widget, changed, false},
		"the API's own Service":             {"/services/specs/default/kubernetes", service, born, true},
		"nobody can read it":                {"/secrets/default/s", "k8s:enc:1", "k8s:enc:2", false},
		"nobody can read one of them":       {"/pods/default/web-1", owned, "k8s:enc:2", false},
	} {
		t.Run(name, func(t *testing.T) {
			side := func(value string) journal.Side { return journal.Side{Value: []byte(value), Deleted: value == gone} }
			c := &journal.Conflict{ID: name, Key: tc.key, Kept: side(tc.kept), Lost: side(tc.lost)}
			var told Derived
			for range 2 {
				if got := told.Is(c); got != tc.want {
					t.Errorf("derived %t, want %t", got, tc.want)
				}
			}
		})
	}
}
