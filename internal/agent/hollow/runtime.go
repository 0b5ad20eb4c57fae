package hollow

import (
	"context"
	"errors"
	"io"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
)

// Runtime is Podman in memory, with every image in the world.
type Runtime struct{ *podmantest.Fake }

// NewRuntime has no containers yet; they do not outlive the process.
func NewRuntime() Runtime {
	r := Runtime{podmantest.New()}
	r.Forgetful = true
	r.OnExec = func(_ context.Context, _ string, cfg podman.ExecConfig) (int, error) {
		if cfg.Stdout != nil {
			_, _ = io.WriteString(cfg.Stdout, "this pod only pretends to run: its node was started with --runtime=hollow\n")
		}
		return 0, nil
	}
	return r
}

// Info says in the version that there is no Podman: nodes show it.
func (r Runtime) Info(ctx context.Context) (podman.Info, error) {
	info, err := r.Fake.Info(ctx)
	info.Version = "0.0.0-hollow"
	return info, err
}

// Image finds every image.
func (r Runtime) Image(ctx context.Context, ref string) (podman.Image, error) {
	img, err := r.Fake.Image(ctx, ref)
	if !errors.Is(err, podman.ErrNotFound) {
		return img, err
	}
	return r.AddImage(ref, podman.Image{RepoTags: []string{ref}, Cmd: []string{"pretend"}}), nil
}

// Pull succeeds.
func (r Runtime) Pull(ctx context.Context, ref string, _ *podman.Auth) (string, error) {
	img, err := r.Image(ctx, ref)
	return img.ID, err
}
