package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// Reasons why a container waits for its image.
const (
	ErrImagePull      = "ErrImagePull"
	ImagePullBackOff  = "ImagePullBackOff"
	ErrImageNeverPull = "ErrImageNeverPull"
	ErrImageInspect   = "ImageInspectError"
	InvalidImageName  = "InvalidImageName"
)

const (
	// fresh is how long a found image is believed to be still here. A burst of pods looks it up
	// once; creation names the ID, so a wrong belief is an error there and never a wrong image.
	fresh = 10 * time.Second
	// shown is how long a failed pull is told as such before its back-off is.
	shown = 2 * time.Second
)

// Runtime is what is needed of Podman.
type Runtime interface {
	Image(ctx context.Context, ref string) (podman.Image, error)
	Pull(ctx context.Context, ref string, auth *podman.Auth) (string, error)
}

// NoImageError is why a container cannot have its image. It is an error.
type NoImageError struct {
	Reason  string // the waiting reason
	Message string
	Retry   time.Time // try again then
}

// Error implements error.
func (f *NoImageError) Error() string { return f.Reason + ": " + f.Message }

// Request asks for one container's image.
type Request struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	// Secrets are the pod's pull secrets; asked for only when there is something to pull.
	Secrets func() []corev1.Secret
	// Record writes an event of this container.
	Record func(kind, reason, message string)
}

// Images finds and pulls images. Safe for concurrent use; pulls of one name wait for each other.
type Images struct {
	runtime Runtime
	now     func() time.Time

	mu      sync.Mutex
	found   map[string]found
	pulling map[string]chan struct{}
	backoff map[string]retry // by pod UID and name
}

type found struct {
	image podman.Image
	at    time.Time
}

type retry struct {
	plan.Backoff
	failed  time.Time
	message string
}

// New returns Images. The clock is time.Now unless given.
func New(r Runtime, now func() time.Time) *Images {
	return &Images{
		runtime: r, now: now,
		found: map[string]found{}, pulling: map[string]chan struct{}{}, backoff: map[string]retry{},
	}
}

// Forget drops what is remembered of a pod's pulls, and images not asked for lately.
func (m *Images) Forget(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, f := range m.found {
		if m.now().Sub(f.at) >= fresh {
			delete(m.found, k)
		}
	}
	for k := range m.backoff {
		if strings.HasPrefix(k, uid+"_") {
			delete(m.backoff, k)
		}
	}
}

// Lost drops the belief that an image is here.
func (m *Images) Lost(ref string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.found, ref)
}

// Ensure returns the image of a container, pulled if its policy says so. The error is a *NoImageError,
// Podman's when its service is away, or ctx's.
func (m *Images) Ensure(ctx context.Context, r Request) (podman.Image, error) {
	ref := r.Container.Image
	if _, err := podman.PullName(ref); err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", ref, ref, err)
		r.Record(corev1.EventTypeWarning, "InspectFailed", msg)
		return podman.Image{}, m.failed(r, &NoImageError{Reason: InvalidImageName, Message: msg})
	}
	// A localhost/ name is by definition of this machine and says nothing to any registry.
	policy := r.Container.ImagePullPolicy
	local := strings.HasPrefix(ref, "localhost/")
	if policy != corev1.PullAlways || local {
		img, err := m.Lookup(ctx, ref)
		switch {
		case err == nil:
			r.Record(corev1.EventTypeNormal, "Pulled",
				fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", ref))
			return img, nil
		case !errors.Is(err, podman.ErrNotFound):
			return podman.Image{}, err
		}
	}
	if policy == corev1.PullNever {
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", ref)
		r.Record(corev1.EventTypeWarning, ErrImageNeverPull, msg)
		return podman.Image{}, m.failed(r, &NoImageError{Reason: ErrImageNeverPull, Message: msg})
	}
	return m.pull(ctx, r, local)
}

// failed adds the event and the next try to a failure that no back-off governs.
func (m *Images) failed(r Request, f *NoImageError) *NoImageError {
	r.Record(corev1.EventTypeWarning, "Failed", "Error: "+f.Reason)
	f.Retry = m.now().Add(plan.BackoffFirst)
	return f
}

// Lookup finds a local image by name or ID; absent: podman.ErrNotFound.
func (m *Images) Lookup(ctx context.Context, ref string) (podman.Image, error) {
	m.mu.Lock()
	f, ok := m.found[ref]
	m.mu.Unlock()
	if ok && m.now().Sub(f.at) < fresh {
		return f.image, nil
	}
	img, err := m.runtime.Image(ctx, ref)
	if err != nil {
		m.Lost(ref)
		return podman.Image{}, err
	}
	m.mu.Lock()
	m.found[ref] = found{img, m.now()}
	m.mu.Unlock()
	return img, nil
}

func (m *Images) pull(ctx context.Context, r Request, local bool) (podman.Image, error) {
	key := string(r.Pod.UID) + "_" + r.Container.Image
	m.mu.Lock()
	b := m.backoff[key]
	m.mu.Unlock()
	if f := m.inBackoff(r, b); f != nil {
		return podman.Image{}, f
	}
	begin := m.now()
	if err := m.lock(ctx, r.Container.Image); err != nil {
		return podman.Image{}, err
	}
	defer m.unlock(r.Container.Image)
	if r.Container.ImagePullPolicy != corev1.PullAlways {
		// Somebody else may have pulled it while we waited.
		if img, err := m.Lookup(ctx, r.Container.Image); err == nil {
			return img, nil
		}
	}
	r.Record(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Container.Image))
	start := m.now()
	id, err := m.fetch(ctx, r, local)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, podman.ErrUnavailable) {
			return podman.Image{}, err
		}
		return podman.Image{}, m.pullFailed(r, key, err)
	}
	img, err := m.runtime.Image(ctx, id)
	if err != nil {
		return podman.Image{}, err
	}
	done := m.now()
	r.Record(corev1.EventTypeNormal, "Pulled", fmt.Sprintf(
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", r.Container.Image,
		done.Sub(start).Truncate(time.Millisecond), done.Sub(begin).Truncate(time.Millisecond), img.Size))
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.backoff, key)
	m.found[r.Container.Image] = found{img, done}
	return img, nil
}

func (m *Images) inBackoff(r Request, b retry) *NoImageError {
	until := b.failed.Add(b.Delay)
	if b.Delay == 0 || !until.After(m.now()) {
		return nil
	}
	msg := fmt.Sprintf("Back-off pulling image %q", r.Container.Image)
	r.Record(corev1.EventTypeNormal, "BackOff", msg)
	r.Record(corev1.EventTypeWarning, "Failed", "Error: "+ImagePullBackOff)
	return &NoImageError{Reason: ImagePullBackOff, Message: msg + ": " + b.message, Retry: until}
}

// fetch pulls with each fitting credential, best first; without any it asks as nobody.
func (m *Images) fetch(ctx context.Context, r Request, local bool) (string, error) {
	if local {
		return "", fmt.Errorf("no such image on this machine, and a localhost/ name is never pulled: load it with `podman load` or build it here")
	}
	auths := Credentials(r.Secrets(), r.Container.Image)
	if len(auths) == 0 {
		return m.runtime.Pull(ctx, r.Container.Image, nil)
	}
	var errs []error
	for i := range auths {
		id, err := m.runtime.Pull(ctx, r.Container.Image, &auths[i])
		if err == nil || ctx.Err() != nil || errors.Is(err, podman.ErrUnavailable) {
			return id, err
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func (m *Images) pullFailed(r Request, key string, err error) *NoImageError {
	words := strings.Join(strings.Fields(err.Error()), " ")
	r.Record(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", r.Container.Image, words))
	r.Record(corev1.EventTypeWarning, "Failed", "Error: "+ErrImagePull)
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.backoff[key]
	now := m.now()
	m.backoff[key] = retry{Backoff: b.Next(now, now), failed: now, message: ErrImagePull + ": " + words}
	return &NoImageError{Reason: ErrImagePull, Message: words, Retry: now.Add(shown)}
}

func (m *Images) lock(ctx context.Context, ref string) error {
	for {
		m.mu.Lock()
		busy := m.pulling[ref]
		if busy == nil {
			m.pulling[ref] = make(chan struct{})
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *Images) unlock(ref string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.pulling[ref])
	delete(m.pulling, ref)
}

// Name is what an image is called in a status: the name that was asked for, or one that it has.
func Name(img podman.Image, asked string) string {
	name, err := podman.PullName(asked)
	if err != nil {
		return asked
	}
	for _, t := range img.RepoTags {
		if t == name {
			return t
		}
	}
	if len(img.RepoTags) > 0 && !strings.Contains(asked, "@") {
		return img.RepoTags[0]
	}
	return name
}
