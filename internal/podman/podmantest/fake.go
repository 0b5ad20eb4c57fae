package podmantest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// Fake is a Podman in memory with the methods of Client, for the tests of its users. It answers like the real one
// where the contract test says how that answers: the same errors, states and exit codes. Time is the time package's,
// so it works inside testing/synctest.
type Fake struct {
	// Behave says what a container does once it is started; nil: every one runs until it is stopped.
	Behave func(podman.ContainerSpec) Behavior
	// OnExec runs a command; nil: every command succeeds without output. Set before use.
	OnExec func(ctx context.Context, id string, cfg podman.ExecConfig) (int, error)
	// OnAttach serves an attachment; nil: it lasts until the container ends or ctx does. Set before use.
	OnAttach func(ctx context.Context, id string, cfg podman.AttachConfig) error

	// Hint changes what WatchExits tells of an end, false has it told not at all; nil: everything is told as it
	// happened. Set before use.
	Hint func(podman.Exit) (podman.Exit, bool)
	// Lag is for how long after its end a container still reads as running. Set before use.
	Lag time.Duration

	// Forgetful keeps no list of calls: for use over a long time. Set before use.
	Forgetful bool

	mu         sync.Mutex
	info       podman.Info
	down       bool
	fail       map[string][]error
	images     map[string]podman.Image // by full name
	remote     map[string]podman.Image // what can be pulled
	containers map[string]*fakeContainer
	pods       map[string]*podman.Pod
	calls      []string
	asked      map[string]int // calls of every method
	watchers   map[chan podman.Exit]struct{}
	seq        int
}

// Behavior of one container.
type Behavior struct {
	StartError error         // Start fails with it
	Exits      bool          // it ends by itself ...
	After      time.Duration // ... so long after its start
	Code       int32
	OOMKilled  bool
	IgnoreTerm bool          // only SIGKILL ends it
	Launch     time.Duration // so long after the start the call of Start returns
}

type fakeContainer struct {
	podman.Container
	spec     podman.ContainerSpec
	behavior Behavior
	ended    chan struct{} // closed at the end of this run
}

// New has no images and no containers.
func New() *Fake {
	return &Fake{
		info: podman.Info{
			Version: "5.4.2", CgroupVersion: "v2", CgroupControllers: []string{"cpu", "memory", "pids"}, OCIRuntime: "crun",
			GraphRoot: "/var/lib/containers/storage", RunRoot: "/run/containers/storage", ExitsDir: "/run/libpod/exits",
			Kernel: "6.12.0", OS: "linux", Distribution: "debian 13", Arch: "amd64", MemTotal: 8 << 30, CPUs: 4,
			MinOOMScoreAdj: -1000, Seccomp: true,
		},
		fail: map[string][]error{}, asked: map[string]int{}, images: map[string]podman.Image{}, remote: map[string]podman.Image{},
		containers: map[string]*fakeContainer{}, pods: map[string]*podman.Pod{}, watchers: map[chan podman.Exit]struct{}{},
	}
}

// SetInfo replaces what Info answers.
func (f *Fake) SetInfo(i podman.Info) { f.mu.Lock(); defer f.mu.Unlock(); f.info = i }

// SetDown makes every call fail with ErrUnavailable, as if the service had stopped; containers go on.
func (f *Fake) SetDown(down bool) { f.mu.Lock(); defer f.mu.Unlock(); f.down = down }

// Fail makes the next calls of a method ("Create", "Start", ...) fail, one error for each call.
func (f *Fake) Fail(method string, errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = append(f.fail[method], errs...)
}

// AddImage makes an image present under a Kubernetes image name, and gives it an ID if it has none.
func (f *Fake) AddImage(ref string, img podman.Image) podman.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addImage(f.images, ref, img)
}

// AddRemote makes an image one that Pull can fetch.
func (f *Fake) AddRemote(ref string, img podman.Image) podman.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addImage(f.remote, ref, img)
}

func (f *Fake) addImage(to map[string]podman.Image, ref string, img podman.Image) podman.Image {
	name, err := podman.PullName(ref)
	if err != nil {
		panic(err) // a test's own mistake
	}
	if img.ID == "" {
		img.ID = f.newID()
	}
	if !slices.Contains(img.RepoTags, name) {
		img.RepoTags = append(img.RepoTags, name)
	}
	to[name] = img
	return img
}

func (f *Fake) newID() string {
	f.seq++
	return fmt.Sprintf("%064x", f.seq)
}

// Calls are the calls that changed something, in order: "Create name", "Start name", ...
func (f *Fake) Calls() []string { f.mu.Lock(); defer f.mu.Unlock(); return slices.Clone(f.calls) }

// Asked counts the calls of a method, also of those that change nothing.
func (f *Fake) Asked(method string) int { f.mu.Lock(); defer f.mu.Unlock(); return f.asked[method] }

// Spec is what a container was created from.
func (f *Fake) Spec(id string) (podman.ContainerSpec, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.find(id)
	if c == nil {
		return podman.ContainerSpec{}, false
	}
	return c.spec, true
}

// End ends a running container by itself, with this exit code.
func (f *Fake) End(id string, code int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.find(id); c != nil {
		f.end(c, code)
	}
}

// Reboot is a power failure: nothing runs, and what ran reads as "exited with 0" without a time, as in Podman.
func (f *Fake) Reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.State == podman.Running {
			close(c.ended)
			c.State, c.Pid, c.ExitCode, c.Finished = podman.Exited, 0, 0, time.Time{}
		}
	}
}

// begin is the start of every call; f.mu is held when it returns nil.
func (f *Fake) begin(ctx context.Context, method, what string, changes bool) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	f.mu.Lock()
	f.asked[method]++
	if changes && !f.Forgetful {
		f.calls = append(f.calls, strings.TrimSpace(method+" "+what))
	}
	err := error(nil)
	switch {
	case f.down:
		err = fmt.Errorf("%w: connect to podman socket: connection refused", podman.ErrUnavailable)
	case len(f.fail[method]) > 0:
		err = f.fail[method][0]
		f.fail[method] = f.fail[method][1:]
	}
	if err != nil {
		f.mu.Unlock()
	}
	return err
}

// find looks a container up by ID or name; f.mu is held.
func (f *Fake) find(id string) *fakeContainer {
	if c, ok := f.containers[id]; ok {
		return c
	}
	for _, c := range f.containers {
		if c.Name == id {
			return c
		}
	}
	return nil
}

func (f *Fake) end(c *fakeContainer, code int32) {
	if c.State != podman.Running && c.State != podman.Stopping {
		return
	}
	c.State, c.Pid, c.ExitCode, c.Finished, c.OOMKilled = podman.Exited, 0, code, time.Now(), c.behavior.OOMKilled
	close(c.ended)
	x, told := podman.Exit{ID: c.ID, Code: code, At: c.Finished}, true
	if f.Hint != nil {
		x, told = f.Hint(x)
	}
	if told {
		f.tell(x)
	}
}

func (f *Fake) tell(x podman.Exit) {
	for w := range f.watchers {
		select {
		case w <- x:
		default: // a hint may be lost
		}
	}
}

// Tell has WatchExits tell something, whether true or not.
func (f *Fake) Tell(x podman.Exit) { f.mu.Lock(); defer f.mu.Unlock(); f.tell(x) }

// seen is a container as it reads now.
func (f *Fake) seen(c *fakeContainer) podman.Container {
	x := c.Container
	if x.State == podman.Exited && time.Since(x.Finished) < f.Lag {
		x.State, x.ExitCode, x.OOMKilled, x.Finished = podman.Running, 0, false, time.Time{}
	}
	return x
}

// WatchExits is the package's function of this name, without a directory.
func (f *Fake) WatchExits(ctx context.Context, fn func(podman.Exit)) error {
	w := make(chan podman.Exit, 1024)
	f.mu.Lock()
	f.watchers[w] = struct{}{}
	f.mu.Unlock()
	defer func() { f.mu.Lock(); delete(f.watchers, w); f.mu.Unlock() }()
	fn(podman.Exit{}) // what ended before is unheard
	for {
		select {
		case e := <-w:
			fn(e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ping is Client's.
func (f *Fake) Ping(ctx context.Context) error {
	if err := f.begin(ctx, "Ping", "", false); err != nil {
		return err
	}
	f.mu.Unlock()
	return nil
}

// Info is Client's.
func (f *Fake) Info(ctx context.Context) (podman.Info, error) {
	if err := f.begin(ctx, "Info", "", false); err != nil {
		return podman.Info{}, err
	}
	defer f.mu.Unlock()
	return f.info, nil
}

// Image is Client's.
func (f *Fake) Image(ctx context.Context, ref string) (podman.Image, error) {
	names, err := podman.LocalNames(ref)
	if err != nil {
		return podman.Image{}, err
	}
	if err := f.begin(ctx, "Image", ref, false); err != nil {
		return podman.Image{}, err
	}
	defer f.mu.Unlock()
	for _, name := range names {
		if img, ok := f.images[name]; ok {
			return img, nil
		}
		for _, img := range f.images {
			if img.Named(name) {
				return img, nil
			}
		}
	}
	return podman.Image{}, fmt.Errorf("image %s: %w", ref, podman.ErrNotFound)
}

// Images is Client's.
func (f *Fake) Images(ctx context.Context) ([]podman.Image, error) {
	if err := f.begin(ctx, "Images", "", false); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []podman.Image
	for _, name := range slices.Sorted(maps.Keys(f.images)) {
		img := f.images[name]
		for _, c := range f.containers {
			if c.ImageID == img.ID {
				img.Containers++
			}
		}
		out = append(out, img)
	}
	return out, nil
}

// Pull is Client's.
func (f *Fake) Pull(ctx context.Context, ref string, _ *podman.Auth) (string, error) {
	name, err := podman.PullName(ref)
	if err != nil {
		return "", err
	}
	if err := f.begin(ctx, "Pull", name, true); err != nil {
		return "", fmt.Errorf("pull image %s: %w", name, err)
	}
	defer f.mu.Unlock()
	img, ok := f.remote[name]
	if !ok {
		return "", fmt.Errorf("pull image %s: %w", name, errors.New("manifest unknown"))
	}
	f.images[name] = img
	return img.ID, nil
}

// RemoveImage is Client's.
func (f *Fake) RemoveImage(ctx context.Context, id string, force bool) error {
	if err := f.begin(ctx, "RemoveImage", id, true); err != nil {
		return err
	}
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.ImageID == id && !force {
			return fmt.Errorf("remove image %s: %w: image is in use by container %s", id, podman.ErrConflict, c.ID)
		}
	}
	maps.DeleteFunc(f.images, func(_ string, img podman.Image) bool { return img.ID == id })
	return nil
}

// Load is Client's; what it reads it forgets.
func (f *Fake) Load(ctx context.Context, archive io.Reader) ([]string, error) {
	if err := f.begin(ctx, "Load", "", true); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	_, err := io.Copy(io.Discard, archive)
	return nil, err
}
