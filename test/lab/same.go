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

// everything is what a node's API answers to the list of a resource: each object in JSON under
// "resource namespace/name", and the list's resourceVersion under "resource".
type everything map[string]string

// Sameness asks nodes whether they answer the same to everything: every object of every resource,
// whole, resourceVersions included. A list's resourceVersion is the revision of all state and no
// revision names two states, so resources may be compared one after the other: a swarm in which
// something is written all the time can be the same everywhere too.
type Sameness struct {
	hosts []*Host
	open  []schema.GroupVersionResource // not yet answered the same by all; nil: not known yet
}

// CompareNodes begins to ask hosts.
func CompareNodes(hosts []*Host) *Sameness { return &Sameness{hosts: hosts} }

// Differences lists what the nodes answer differently to the first resource that they did not agree
// on yet; none when they have agreed on each.
func (s *Sameness) Differences(ctx context.Context) ([]string, error) {
	if s.open == nil {
		resources, err := listable(s.hosts[0])
		if err != nil {
			return nil, err
		}
		s.open = resources
	}
	for len(s.open) > 0 {
		differ, err := s.ask(ctx, s.open[0])
		if err != nil || len(differ) > 0 {
			return differ, err
		}
		s.open = s.open[1:]
	}
	return nil, nil
}

func (s *Sameness) ask(ctx context.Context, r schema.GroupVersionResource) ([]string, error) {
	slots := make([]everything, len(s.hosts))
	err := each(ctx, s.hosts, func(ctx context.Context, h *Host) (err error) {
		slots[slices.Index(s.hosts, h)], err = readAll(ctx, h, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	answers := make(map[string]everything, len(s.hosts))
	for i, h := range s.hosts {
		answers[h.Name] = slots[i]
	}
	return compare(s.hosts[0].Name, answers), nil
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

// listable are the resources to ask for, one with few objects first: who disagrees on that one disagrees
// on all, and is not asked for more.
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
			if !slices.Contains(r.Verbs, "list") || !slices.Contains(r.Verbs, "watch") || strings.Contains(r.Name, "/") {
				continue
			}
			if resource := gv.WithResource(r.Name); r.Name == "namespaces" {
				out = slices.Insert(out, 0, resource)
			} else {
				out = append(out, resource)
			}
		}
	}
	return out, nil
}

func readAll(ctx context.Context, h *Host, r schema.GroupVersionResource) (everything, error) {
	a, err := h.connect()
	if err != nil {
		return nil, err
	}
	c, err := dynamic.NewForConfigAndClient(a.config, a.http)
	if err != nil {
		return nil, err
	}
	list, err := c.Resource(r).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", r, err)
	}
	out := everything{r.String(): list.GetResourceVersion()}
	for _, o := range list.Items {
		data, err := o.MarshalJSON()
		if err != nil {
			return nil, err
		}
		out[fmt.Sprintf("%s %s/%s", r.GroupResource(), o.GetNamespace(), o.GetName())] = string(data)
	}
	return out, nil
}
