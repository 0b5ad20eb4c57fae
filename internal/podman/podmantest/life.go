package podmantest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// firstPid keeps a fake's process IDs away from real ones: no kernel hands out so large a number.
const firstPid = 1 << 30

func matches(have, want map[string]string) bool {
	for k, v := range want {
		got, ok := have[k]
		if !ok || v != "" && got != v {
			return false
		}
	}
	return true
}

// CreatePod is Client's.
func (f *Fake) CreatePod(ctx context.Context, spec podman.PodSpec) (string, error) {
	if err := f.begin(ctx, "CreatePod", spec.Name, true); err != nil {
		return "", fmt.Errorf("create pod %s: %w", spec.Name, err)
	}
	defer f.mu.Unlock()
	for _, p := range f.pods {
		if p.Name == spec.Name {
			return "", fmt.Errorf("create pod %s: %w: name is in use", spec.Name, podman.ErrConflict)
		}
	}
	p := &podman.Pod{ID: f.newID(), Name: spec.Name, Labels: maps.Clone(spec.Labels), State: "Created", Created: time.Now()}
	f.pods[p.ID] = p
	return p.ID, nil
}

// RemovePod is Client's.
func (f *Fake) RemovePod(ctx context.Context, name string) error {
	if err := f.begin(ctx, "RemovePod", name, true); err != nil {
		return fmt.Errorf("remove pod %s: %w", name, err)
	}
	defer f.mu.Unlock()
	for id, p := range f.pods {
		if id != name && p.Name != name {
			continue
		}
		for cid, c := range f.containers {
			if c.PodID == id {
				f.end(c, 137)
				delete(f.containers, cid)
			}
		}
		delete(f.pods, id)
	}
	return nil
}

// Pods is Client's.
func (f *Fake) Pods(ctx context.Context, labels map[string]string) ([]podman.Pod, error) {
	if err := f.begin(ctx, "Pods", "", false); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []podman.Pod
	for _, id := range slices.Sorted(maps.Keys(f.pods)) {
		p := *f.pods[id]
		if !matches(p.Labels, labels) {
			continue
		}
		for _, c := range slices.Sorted(maps.Keys(f.containers)) {
			if f.containers[c].PodID == id {
				p.Containers = append(p.Containers, c)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// Create is Client's.
func (f *Fake) Create(ctx context.Context, spec podman.ContainerSpec) (string, error) {
	if err := f.begin(ctx, "Create", spec.Name, true); err != nil {
		return "", fmt.Errorf("create container %s: %w", spec.Name, err)
	}
	defer f.mu.Unlock()
	if f.find(spec.Name) != nil {
		return "", fmt.Errorf("create container %s: %w: name is in use", spec.Name, podman.ErrConflict)
	}
	known := slices.ContainsFunc(slices.Collect(maps.Values(f.images)), func(i podman.Image) bool {
		return i.ID == spec.Image || slices.Contains(i.RepoTags, spec.Image)
	})
	if !known {
		return "", fmt.Errorf("create container %s: %w: image not known", spec.Name, podman.ErrNotFound)
	}
	if _, ok := f.pods[spec.Pod]; spec.Pod != "" && !ok {
		return "", fmt.Errorf("create container %s: %w: no such pod", spec.Name, podman.ErrNotFound)
	}
	c := &fakeContainer{spec: spec}
	id := f.newID()
	c.Container = podman.Container{
		ID: id, Name: spec.Name, PodID: spec.Pod, Labels: maps.Clone(spec.Labels), State: podman.Created, Created: time.Now(),
		ImageID: spec.Image, Image: spec.Image, LogPath: spec.Log.Path,
		StaticDir: "/var/lib/containers/storage/overlay-containers/" + id + "/userdata",
	}
	f.containers[id] = c
	return id, nil
}

// Start is Client's.
func (f *Fake) Start(ctx context.Context, id string) error {
	if err := f.begin(ctx, "Start", f.nameOf(id), true); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	launch, err := f.launch(id)
	f.mu.Unlock()
	if err != nil || launch == 0 {
		return err
	}
	timer := time.NewTimer(launch)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// launch starts a container and says how long the call takes; f.mu is held.
func (f *Fake) launch(id string) (time.Duration, error) {
	c := f.find(id)
	if c == nil {
		return 0, fmt.Errorf("start container %s: %w", id, podman.ErrNotFound)
	}
	if c.State == podman.Running {
		return 0, nil
	}
	c.behavior = Behavior{}
	if f.Behave != nil {
		c.behavior = f.Behave(c.spec)
	}
	if c.behavior.StartError != nil {
		return 0, fmt.Errorf("start container %s: %w", id, c.behavior.StartError)
	}
	f.seq++
	c.State, c.Pid, c.Started, c.Finished = podman.Running, firstPid+f.seq, time.Now(), time.Time{}
	c.ExitCode, c.OOMKilled = 0, false
	ended := make(chan struct{})
	c.ended = ended
	if c.behavior.Exits {
		time.AfterFunc(c.behavior.After, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if c.ended == ended {
				f.end(c, c.behavior.Code)
			}
		})
	}
	return c.behavior.Launch, nil
}

// nameOf is for the journal of calls.
func (f *Fake) nameOf(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.find(id); c != nil {
		return c.Name
	}
	return id
}

// Stop is Client's: it takes the whole grace when the container ignores SIGTERM.
func (f *Fake) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := f.begin(ctx, "Stop", f.nameOf(id), true); err != nil {
		return fmt.Errorf("stop container %s: %w", id, err)
	}
	c := f.find(id)
	if c == nil {
		f.mu.Unlock()
		return fmt.Errorf("stop container %s: %w", id, podman.ErrNotFound)
	}
	if c.State != podman.Running {
		f.mu.Unlock()
		return nil
	}
	if !c.behavior.IgnoreTerm {
		f.end(c, 143)
		f.mu.Unlock()
		return nil
	}
	c.State = podman.Stopping
	ended := c.ended
	f.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(c, 137)
	return nil
}

// Kill is Client's.
func (f *Fake) Kill(ctx context.Context, id, signal string) error {
	if err := f.begin(ctx, "Kill", f.nameOf(id)+" "+signal, true); err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	defer f.mu.Unlock()
	c := f.find(id)
	switch {
	case c == nil:
		return fmt.Errorf("kill container %s: %w", id, podman.ErrNotFound)
	case c.State != podman.Running && c.State != podman.Stopping:
		return fmt.Errorf("kill container %s: %w: can only kill running containers", id, podman.ErrConflict)
	}
	switch strings.TrimPrefix(signal, "SIG") {
	case "KILL", "9":
		f.end(c, 137)
	case "TERM", "15":
		if !c.behavior.IgnoreTerm {
			f.end(c, 143)
		}
	}
	return nil
}

// Remove is Client's.
func (f *Fake) Remove(ctx context.Context, id string, force bool) error {
	if err := f.begin(ctx, "Remove", f.nameOf(id), true); err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	defer f.mu.Unlock()
	c := f.find(id)
	switch {
	case c == nil:
		return nil
	case !force && (c.State == podman.Running || c.State == podman.Stopping):
		return fmt.Errorf("remove container %s: %w: container is running", id, podman.ErrConflict)
	}
	f.end(c, 137)
	delete(f.containers, c.ID)
	return nil
}

// Inspect is Client's.
func (f *Fake) Inspect(ctx context.Context, id string) (podman.Container, error) {
	if err := f.begin(ctx, "Inspect", id, false); err != nil {
		return podman.Container{}, fmt.Errorf("inspect container %s: %w", id, err)
	}
	defer f.mu.Unlock()
	c := f.find(id)
	if c == nil {
		return podman.Container{}, fmt.Errorf("inspect container %s: %w", id, podman.ErrNotFound)
	}
	return f.seen(c), nil
}

// Containers is Client's: what a list lacks is missing here too.
func (f *Fake) Containers(ctx context.Context, labels map[string]string) ([]podman.Container, error) {
	if err := f.begin(ctx, "Containers", "", false); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	defer f.mu.Unlock()
	var out []podman.Container
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		c := f.seen(f.containers[id])
		if !matches(c.Labels, labels) {
			continue
		}
		c.OOMKilled, c.Error, c.LogPath, c.StaticDir = false, "", "", ""
		c.Started, c.Finished = c.Started.Truncate(time.Second), c.Finished.Truncate(time.Second)
		out = append(out, c)
	}
	return out, nil
}

// Stats is Client's: every running container has used a little.
func (f *Fake) Stats(ctx context.Context) ([]podman.Stats, error) {
	if err := f.begin(ctx, "Stats", "", false); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []podman.Stats
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		if f.containers[id].State == podman.Running {
			out = append(out, podman.Stats{ID: id, CPU: time.Millisecond, Memory: 1 << 20, Pids: 1})
		}
	}
	return out, nil
}

// running is the end of a container's run, or why there is none; f.mu is held.
func (f *Fake) running(id string) (<-chan struct{}, error) {
	c := f.find(id)
	switch {
	case c == nil:
		return nil, podman.ErrNotFound
	case c.State != podman.Running:
		return nil, fmt.Errorf("%w: container state improper", podman.ErrConflict)
	}
	return c.ended, nil
}

// Exec is Client's.
func (f *Fake) Exec(ctx context.Context, id string, cfg podman.ExecConfig) (int, error) {
	if err := f.begin(ctx, "Exec", id, false); err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	_, err := f.running(id)
	run := f.OnExec
	f.mu.Unlock()
	switch {
	case err != nil:
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	case run == nil:
		return 0, nil
	}
	return run(ctx, id, cfg)
}

// Attach is Client's.
func (f *Fake) Attach(ctx context.Context, id string, cfg podman.AttachConfig) error {
	if err := f.begin(ctx, "Attach", id, false); err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	ended, err := f.running(id)
	run := f.OnAttach
	f.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("attach to container %s: %w", id, err)
	case run != nil:
		return run(ctx, id, cfg)
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
