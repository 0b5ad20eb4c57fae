package podmantest_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
)

// api is everything that a user of the client calls: Fake must keep up with it.
type api interface {
	Ping(ctx context.Context) error
	Info(ctx context.Context) (podman.Info, error)
	Image(ctx context.Context, ref string) (podman.Image, error)
	Images(ctx context.Context) ([]podman.Image, error)
	Pull(ctx context.Context, ref string, auth *podman.Auth) (string, error)
	RemoveImage(ctx context.Context, id string, force bool) error
	Load(ctx context.Context, archive io.Reader) ([]string, error)
	CreatePod(ctx context.Context, spec podman.PodSpec) (string, error)
	RemovePod(ctx context.Context, name string) error
	Pods(ctx context.Context, labels map[string]string) ([]podman.Pod, error)
	Create(ctx context.Context, spec podman.ContainerSpec) (string, error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, grace time.Duration) error
	Kill(ctx context.Context, id, signal string) error
	Remove(ctx context.Context, id string, force bool) error
	Inspect(ctx context.Context, id string) (podman.Container, error)
	Containers(ctx context.Context, labels map[string]string) ([]podman.Container, error)
	Exec(ctx context.Context, id string, cfg podman.ExecConfig) (int, error)
	Attach(ctx context.Context, id string, cfg podman.AttachConfig) error
	Stats(ctx context.Context) ([]podman.Stats, error)
}

var (
	_ api = (*podman.Client)(nil)
	_ api = (*podmantest.Fake)(nil)
)

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// The fake's part of the contract test: the same answers that a real Podman gives there.
func TestFakeErrors(t *testing.T) {
	f, ctx := podmantest.New(), t.Context()
	img := f.AddImage("busybox:1", podman.Image{})
	pod, err := f.CreatePod(ctx, podman.PodSpec{Name: "p"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.CreatePod(ctx, podman.PodSpec{Name: "p"})
	wantErr(t, err, podman.ErrConflict)
	spec := podman.ContainerSpec{Name: "c", Image: img.ID, Pod: pod}
	id, err := f.Create(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Create(ctx, spec)
	wantErr(t, err, podman.ErrConflict)
	_, err = f.Create(ctx, podman.ContainerSpec{Name: "d", Image: "nosuch"})
	wantErr(t, err, podman.ErrNotFound)
	_, err = f.Create(ctx, podman.ContainerSpec{Name: "d", Image: img.ID, Pod: "nosuch"})
	wantErr(t, err, podman.ErrNotFound)
	wantErr(t, f.Start(ctx, "nosuch"), podman.ErrNotFound)
	wantErr(t, f.Kill(ctx, id, "SIGTERM"), podman.ErrConflict)
	_, err = f.Exec(ctx, id, podman.ExecConfig{})
	wantErr(t, err, podman.ErrConflict)
	if err := f.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	wantErr(t, f.Remove(ctx, id, false), podman.ErrConflict)
	wantErr(t, f.RemoveImage(ctx, img.ID, false), podman.ErrConflict)
	_, err = f.Pull(ctx, "nosuch", nil)
	if err == nil || errors.Is(err, podman.ErrUnavailable) {
		t.Errorf("pull: %v", err)
	}
	f.Fail("Inspect", podman.ErrUnavailable)
	_, err = f.Inspect(ctx, id)
	wantErr(t, err, podman.ErrUnavailable)
	if got, err := f.Inspect(ctx, id); err != nil || got.State != podman.Running {
		t.Errorf("state %s, %v", got.State, err)
	}
	f.SetDown(true)
	wantErr(t, f.Ping(ctx), podman.ErrUnavailable)
	f.SetDown(false)
	for _, step := range []error{f.Remove(ctx, id, true), f.Remove(ctx, id, true), f.RemovePod(ctx, "p"), f.RemovePod(ctx, "p")} {
		if step != nil {
			t.Error(step)
		}
	}
}

func TestFakeLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := podmantest.New()
		img := f.AddImage("job:1", podman.Image{})
		f.Behave = func(s podman.ContainerSpec) podmantest.Behavior {
			if s.Name == "job" {
				return podmantest.Behavior{Exits: true, After: time.Minute, Code: 3}
			}
			return podmantest.Behavior{IgnoreTerm: true}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var exits []podman.Exit
		done := make(chan error)
		go func() { done <- f.WatchExits(ctx, func(e podman.Exit) { exits = append(exits, e) }) }()
		synctest.Wait()
		ids := map[string]string{}
		for _, name := range []string{"job", "stubborn", "cut"} {
			id, err := f.Create(ctx, podman.ContainerSpec{Name: name, Image: img.ID})
			if err == nil {
				err = f.Start(ctx, id)
			}
			if err != nil {
				t.Fatal(err)
			}
			ids[name] = id
		}
		begun := time.Now()
		if err := f.Stop(ctx, ids["stubborn"], 30*time.Second); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("stop took %v", took)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		f.Reboot()
		for name, want := range map[string]int32{"job": 3, "stubborn": 137, "cut": 0} {
			c, err := f.Inspect(ctx, ids[name])
			if err != nil || c.State != podman.Exited || c.ExitCode != want || c.Finished.IsZero() != (name == "cut") {
				t.Errorf("%s: %+v, %v", name, c, err)
			}
		}
		cancel()
		wantErr(t, <-done, context.Canceled)
		if len(exits) != 3 || exits[0].ID != "" || exits[1].ID != ids["stubborn"] || exits[2].ID != ids["job"] || exits[2].Code != 3 {
			t.Errorf("exits %+v", exits)
		}
	})
}
