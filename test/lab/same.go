package lab

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
)

// everything is what a node's API answers: the lists of every resource, each object in JSON under
// "resource namespace/name", and each list's resourceVersion under "resource".
type everything map[string]string

// Differences lists what the nodes answer differently: every object of every resource, whole,
// resourceVersions included, and the resourceVersions of the lists.
func Differences(ctx context.Context, hosts []*Host) ([]string, error) {
	resources, err := listable(hosts[0])
	if err != nil {
		return nil, err
	}
	answers := make(map[string]everything, len(hosts))
	slots := make([]everything, len(hosts))
	err = each(ctx, hosts, func(ctx context.Context, h *Host) (err error) {
		slots[slices.Index(hosts, h)], err = readAll(ctx, h, resources)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		answers[h.Name] = slots[i]
	}
	return compare(hosts[0].Name, answers), nil
}

// compare lists the keys under which any node's answers are not those of the first.
func compare(first string, answers map[string]everything) []string {
	keys := map[string]bool{}
	for _, a := range answers {
		for k := range a {
			keys[k] = true
		}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		for _, node := range slices.Sorted(maps.Keys(answers)) {
			want, known := answers[first][k]
			have, there := answers[node][k]
			switch {
			case known && !there:
				out = append(out, fmt.Sprintf("%s is missing on %s", k, node))
			case !known && there:
				out = append(out, fmt.Sprintf("%s is missing on %s, not on %s", k, first, node))
			case want != have:
				out = append(out, fmt.Sprintf("%s: on %s %s, on %s %s", k, first, clip(want), node, clip(have)))
			}
		}
	}
	return out
}

func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func listable(h *Host) ([]schema.GroupVersionResource, error) {
	c, err := h.API()
	if err != nil {
		return nil, err
	}
	lists, err := discovery.ServerPreferredResources(c.Discovery())
	if err != nil {
		return nil, err
	}
	var out []schema.GroupVersionResource
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range l.APIResources {
			// What cannot be watched is computed, not stored.
			if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "watch") && !strings.Contains(r.Name, "/") {
				out = append(out, gv.WithResource(r.Name))
			}
		}
	}
	return out, nil
}

func readAll(ctx context.Context, h *Host, resources []schema.GroupVersionResource) (everything, error) {
	a, err := h.connect()
	if err != nil {
		return nil, err
	}
	c, err := dynamic.NewForConfigAndClient(a.config, a.http)
	if err != nil {
		return nil, err
	}
	out := everything{}
	for _, r := range resources {
		list, err := c.Resource(r).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", r, err)
		}
		out[r.String()] = list.GetResourceVersion()
		for _, o := range list.Items {
			data, err := o.MarshalJSON()
			if err != nil {
				return nil, err
			}
			out[fmt.Sprintf("%s %s/%s", r.GroupResource(), o.GetNamespace(), o.GetName())] = string(data)
		}
	}
	return out, nil
}
