package podman

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// Create makes a container and returns its ID. A taken name is ErrConflict, an unknown image or pod ErrNotFound.
func (c *Client) Create(ctx context.Context, spec ContainerSpec) (string, error) {
	var out struct{ Id string }
	err := c.call(ctx, request{method: http.MethodPost, path: "/containers/create", body: spec, heavy: true}, &out)
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", spec.Name, err)
	}
	return out.Id, nil
}

// Start starts a container; one that runs already is no error. A missing executable is reported here.
func (c *Client) Start(ctx context.Context, id string) error {
	err := c.call(ctx, request{method: http.MethodPost, path: "/containers/" + id + "/start", heavy: true}, nil)
	if err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

// Stop sends the container's stop signal and, after grace (whole seconds, rounded up), SIGKILL. It returns when the
// container has ended; one that has ended already is no error. It takes as long as grace.
func (c *Client) Stop(ctx context.Context, id string, grace time.Duration) error {
	secs := int(math.Ceil(max(grace, 0).Seconds()))
	q := url.Values{"timeout": {strconv.Itoa(secs)}}
	err := c.call(ctx, request{method: http.MethodPost, path: "/containers/" + id + "/stop", query: q}, nil)
	if err != nil {
		return fmt.Errorf("stop container %s: %w", id, err)
	}
	return nil
}

// Kill sends a signal ("SIGTERM" or "15"). A container that does not run: ErrConflict.
func (c *Client) Kill(ctx context.Context, id, signal string) error {
	q := url.Values{"signal": {signal}}
	err := c.call(ctx, request{method: http.MethodPost, path: "/containers/" + id + "/kill", query: q}, nil)
	if err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	return nil
}

// Remove removes a container; force kills it first. An absent container is no error, a running one without force is
// ErrConflict.
func (c *Client) Remove(ctx context.Context, id string, force bool) error {
	q := url.Values{"force": {strconv.FormatBool(force)}, "v": {"true"}}
	if force {
		q.Set("timeout", "0")
		if ctr, err := c.Inspect(ctx, id); err == nil {
			c.killStopping(ctx, ctr)
		}
	}
	err := c.call(ctx, request{method: http.MethodDelete, path: "/containers/" + id, query: q, heavy: true}, nil)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// killStopping ends a container whose stop was cut off, because the service died in the middle of it. Podman 4 would
// remove such a container and leave its process running, known to nobody.
func (c *Client) killStopping(ctx context.Context, ctr Container) {
	if ctr.State != Stopping || c.Kill(ctx, ctr.ID, "SIGKILL") != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exitWait)
	defer cancel()
	for err := error(nil); err == nil && ctr.State == Stopping; ctr, err = c.Inspect(ctx, ctr.ID) {
		pause(ctx, exitPoll)
	}
}

type inspected struct {
	Id, Name, Pod    string
	Created          time.Time
	Image, ImageName string
	StaticDir        string
	IsInfra          bool
	State            struct {
		Status     string
		OOMKilled  bool
		Pid        int
		ExitCode   int32
		Error      string
		StartedAt  time.Time
		FinishedAt time.Time
	}
	Config     struct{ Labels map[string]string }
	HostConfig struct{ LogConfig struct{ Path string } }
}

// Inspect tells everything of one container.
func (c *Client) Inspect(ctx context.Context, id string) (Container, error) {
	var in inspected
	err := c.call(ctx, request{method: http.MethodGet, path: "/containers/" + id + "/json"}, &in)
	if err != nil {
		return Container{}, fmt.Errorf("inspect container %s: %w", id, err)
	}
	ctr := Container{
		ID: in.Id, Name: in.Name, PodID: in.Pod, Labels: in.Config.Labels, State: stateOf(in.State.Status),
		Pid: in.State.Pid, ExitCode: in.State.ExitCode, OOMKilled: in.State.OOMKilled, Error: in.State.Error,
		Created: in.Created, Started: realTime(in.State.StartedAt), Finished: realTime(in.State.FinishedAt),
		ImageID: strings.TrimPrefix(in.Image, "sha256:"), Image: in.ImageName,
		LogPath: in.HostConfig.LogConfig.Path, StaticDir: in.StaticDir, Infra: in.IsInfra,
	}
	ctr.settle()
	return ctr, nil
}

// settle irons out what Podman's records say wrongly.
func (c *Container) settle() {
	switch {
	case c.State == Created && !c.Started.IsZero():
		c.State = Exited // Podman 4 after a power failure; 5 says so itself. Neither has an end or a code.
	case c.State == Running || c.State == Created:
		c.Finished = time.Time{} // the end of an earlier run
	case c.Finished.Before(c.Started) && !c.Finished.IsZero():
		c.Finished = c.Started // the start is noted after the fact: a short life is over by then
	}
}

// realTime drops the year-one and epoch values that libpod gives for "never".
func realTime(t time.Time) time.Time {
	if t.Year() <= 1970 {
		return time.Time{}
	}
	return t
}

func stateOf(s string) ContainerState {
	switch s {
	case "created", "configured", "initialized":
		return Created
	case "running":
		return Running
	case "paused":
		return Paused
	case "stopping", "removing":
		return Stopping
	case "exited", "stopped":
		return Exited
	}
	return Unknown
}

type listedContainer struct {
	Id             string
	Names          []string
	Pod            string
	Labels         map[string]string
	State          string
	Pid            int
	ExitCode       int32
	Created        time.Time
	StartedAt      int64
	ExitedAt       int64
	Image, ImageID string
	IsInfra        bool
}

// Containers lists all containers, in every state, with all these labels.
func (c *Client) Containers(ctx context.Context, labels map[string]string) ([]Container, error) {
	return c.listContainers(ctx, labelFilter(labels))
}

func (c *Client) listContainers(ctx context.Context, filters map[string][]string) ([]Container, error) {
	q := filterQuery(filters)
	q.Set("all", "true")
	var list []listedContainer
	if err := c.call(ctx, request{method: http.MethodGet, path: "/containers/json", query: q}, &list); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := make([]Container, 0, len(list))
	for _, l := range list {
		ctr := Container{
			ID: l.Id, PodID: l.Pod, Labels: l.Labels, State: stateOf(l.State), Pid: l.Pid, ExitCode: l.ExitCode,
			Created: l.Created, Started: unixTime(l.StartedAt), Finished: unixTime(l.ExitedAt),
			ImageID: strings.TrimPrefix(l.ImageID, "sha256:"), Image: l.Image, Infra: l.IsInfra,
		}
		if len(l.Names) > 0 {
			ctr.Name = l.Names[0]
		}
		ctr.settle()
		out = append(out, ctr)
	}
	return out, nil
}

func unixTime(secs int64) time.Time {
	if secs <= 0 {
		return time.Time{}
	}
	return time.Unix(secs, 0)
}

// Stats tells what every running container uses. Rootless on cgroup v1 it is an error that says so.
func (c *Client) Stats(ctx context.Context) ([]Stats, error) {
	var out struct {
		Error any
		Stats []struct {
			ContainerID              string
			CPUNano                  uint64
			MemUsage, MemLimit, PIDs uint64
			BlockInput, BlockOutput  uint64
		}
	}
	q := url.Values{"stream": {"false"}, "all": {"false"}}
	if err := c.call(ctx, request{method: http.MethodGet, path: "/containers/stats", query: q}, &out); err != nil {
		return nil, fmt.Errorf("container stats: %w", err)
	}
	if out.Error != nil {
		b, _ := json.Marshal(out.Error)
		return nil, fmt.Errorf("container stats: %s", b)
	}
	list := make([]Stats, 0, len(out.Stats))
	for _, s := range out.Stats {
		list = append(list, Stats{
			ID: s.ContainerID, CPU: time.Duration(min(s.CPUNano, math.MaxInt64)), Memory: s.MemUsage,
			MemoryLimit: s.MemLimit, Pids: s.PIDs, BlockIn: s.BlockInput, BlockOut: s.BlockOutput,
		})
	}
	return list, nil
}
