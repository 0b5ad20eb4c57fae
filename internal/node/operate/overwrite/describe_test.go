package overwrite

import "testing"

func TestFromKey(t *testing.T) {
	for key, want := range map[string]string{
		"/pods/default/web":                    "pods default web",
		"/namespaces/default":                  "namespaces  default",
		"/example.org/widgets/default/w":       "widgets.example.org default w",
		"/swarm/keys":                          "  ",
		"/odd":                                 "  ",
		"/services/specs/kube-system/kube-dns": "services kube-system kube-dns",
	} {
		resource, namespace, name := FromKey(key)
		if got := resource + " " + namespace + " " + name; got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}
