package podman

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// labelFilter asks for all these labels; an empty value asks for the key alone.
func labelFilter(labels map[string]string) map[string][]string {
	list := make([]string, 0, len(labels))
	for k, v := range labels {
		if v != "" {
			k += "=" + v
		}
		list = append(list, k)
	}
	return map[string][]string{"label": list}
}

// filterQuery is libpod's filters parameter.
func filterQuery(filters map[string][]string) url.Values {
	b, err := json.Marshal(filters)
	if err != nil {
		panic(err) // a map of strings always encodes
	}
	return url.Values{"filters": {string(b)}}
}

// CreatePod makes a pod and returns its ID. A name that is taken: ErrConflict.
func (c *Client) CreatePod(ctx context.Context, spec PodSpec) (string, error) {
	if spec.Shared == nil {
		spec.Shared = []string{} // absent would mean Podman's default set
	}
	var out struct{ Id string }
	err := c.call(ctx, request{method: http.MethodPost, path: "/pods/create", body: spec, heavy: true}, &out)
	if err != nil {
		return "", fmt.Errorf("create pod %s: %w", spec.Name, err)
	}
	return out.Id, nil
}

// RemovePod removes a pod and kills what still runs in it, without grace. An absent pod is no error.
func (c *Client) RemovePod(ctx context.Context, name string) error {
	if list, err := c.listContainers(ctx, map[string][]string{"pod": {name}}); err == nil {
		for _, ctr := range list {
			c.killStopping(ctx, ctr)
		}
	}
	q := url.Values{"force": {"true"}, "timeout": {"0"}}
	err := c.call(ctx, request{method: http.MethodDelete, path: "/pods/" + name, query: q, heavy: true}, nil)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("remove pod %s: %w", name, err)
	}
	return nil
}

type listedPod struct {
	Id         string
	Name       string
	Status     string
	Labels     map[string]string
	Created    time.Time
	InfraId    string
	Containers []struct {
		Id string
	}
}

// Pods lists the pods with all these labels.
func (c *Client) Pods(ctx context.Context, labels map[string]string) ([]Pod, error) {
	var list []listedPod
	err := c.call(ctx, request{method: http.MethodGet, path: "/pods/json", query: filterQuery(labelFilter(labels))}, &list)
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	pods := make([]Pod, 0, len(list))
	for _, l := range list {
		p := Pod{ID: l.Id, Name: l.Name, Labels: l.Labels, State: l.Status, Created: l.Created, InfraID: l.InfraId}
		for _, ctr := range l.Containers {
			p.Containers = append(p.Containers, ctr.Id)
		}
		pods = append(pods, p)
	}
	return pods, nil
}
