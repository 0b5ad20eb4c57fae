package backup

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
	"sigs.k8s.io/yaml"
)

// Objects returns a Source.Objects that reads everything there is through the API. Events are left
// out: they tell of the past and expire within the hour.
func Objects(config *rest.Config) func(ctx context.Context, add func(path string, yaml []byte) error) error {
	return func(ctx context.Context, add func(path string, yaml []byte) error) error {
		disco, err := discovery.NewDiscoveryClientForConfig(config)
		if err != nil {
			return err
		}
		client, err := dynamic.NewForConfig(config)
		if err != nil {
			return err
		}
		// A group whose aggregated API does not answer is not ours to keep.
		lists, err := disco.ServerPreferredResources()
		if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
			return err
		}
		for _, list := range lists {
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				return err
			}
			for _, r := range list.APIResources {
				if !listable(r) || r.Name == "events" {
					continue
				}
				if err := dump(ctx, client.Resource(gv.WithResource(r.Name)), gv.Group, r.Kind, add); err != nil {
					return fmt.Errorf("%s: %w", r.Name, err)
				}
			}
		}
		return nil
	}
}

func listable(r metav1.APIResource) bool {
	return slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "get") && !strings.Contains(r.Name, "/")
}

func dump(ctx context.Context, client dynamic.ResourceInterface, group, kind string, add func(string, []byte) error) error {
	p := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) })
	return p.EachListItem(ctx, metav1.ListOptions{}, func(obj runtime.Object) error {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return errors.New("not an object")
		}
		unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			return err
		}
		return add(objectPath(u, group, kind), text)
	})
}

// objectPath is where an object lies in the archive. Names may hold what paths may not.
func objectPath(u *unstructured.Unstructured, group, kind string) string {
	ns := u.GetNamespace()
	if ns == "" {
		ns = "_cluster"
	}
	if group != "" {
		kind += "." + group
	}
	return ns + "/" + kind + "/" + url.PathEscape(u.GetName()) + ".yaml"
}
