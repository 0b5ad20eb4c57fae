package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/podman-swarm/podman-swarm/internal/agent/image"
	"github.com/podman-swarm/podman-swarm/internal/agent/ledger"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/agent/podfile"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
	"github.com/podman-swarm/podman-swarm/internal/probe"
	"github.com/podman-swarm/podman-swarm/internal/volume"
)

// Waiting reasons of a container that could not be made or started.
const (
	reasonConfigError = "CreateContainerConfigError"
	reasonCreateError = "CreateContainerError"
	reasonRunError    = "RunContainerError"
	reasonPostStart   = "PostStartHookError"
)

// firstProbe is how long a container is left alone after its start: a probe within its first
// milliseconds only costs an event, and a period until the next.
const firstProbe = 300 * time.Millisecond

// startError is a failed start with its waiting reason.
type startError struct {
	reason string
	err    error
}

func (e *startError) Error() string { return e.reason + ": " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// start pulls, creates and starts one attempt of a container and runs its postStart hook.
func (w *Worker) start(ctx context.Context, pod *corev1.Pod, s plan.Start) error {
	if s.Replaces != "" {
		if err := w.remove(ctx, pod, s.Replaces); err != nil {
			return err
		}
	}
	img, err := w.image(pod, s)
	if err != nil {
		return err
	}
	if err := w.acquire(); err != nil {
		return err
	}
	spec, err := w.compile(ctx, pod, s, img)
	if err != nil {
		return w.startFailed(s, reasonConfigError, err)
	}
	if !s.Failed.IsZero() {
		now := w.host.Now()
		w.backoffs[s.Spec.Name] = w.backoffs[s.Spec.Name].Next(s.Failed, now)
	}
	if err := w.held(ctx, pod); err != nil {
		return err
	}
	id, err := w.create(ctx, s, img, spec)
	if err != nil {
		return err
	}
	if err := w.launch(ctx, pod, s, id); err != nil {
		return err
	}
	w.release()
	return w.postStart(ctx, pod, s, id)
}

// startFailed makes the error of a failed start and writes its event, unless that was merely cut short.
func (w *Worker) startFailed(s plan.Start, reason string, err error) error {
	if errors.Is(err, podman.ErrUnavailable) || w.hurried() != nil {
		return err
	}
	err = words(err)
	w.event(s.Spec.Name, corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
	return &startError{reason, err}
}

// words takes the container's ID off an error of Podman: it differs with every attempt, and would
// make of each event a new one.
func words(err error) error {
	msg := err.Error()
	for _, verb := range []string{"create container ", "start container "} {
		if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(msg, verb) {
			return inner
		}
	}
	return err
}

// image ensures the container's image. While it is pulled the pod leaves its slot to others.
func (w *Worker) image(pod *corev1.Pod, s plan.Start) (podman.Image, error) {
	return w.host.Images.Ensure(w.urgent, image.Request{ // see urgent
		Pod: pod, Container: s.Spec,
		Secrets: func() []corev1.Secret { return w.pullSecrets(w.urgent, pod) },
		Record: func(kind, reason, message string) {
			w.event(s.Spec.Name, kind, reason, message)
			if reason == "Pulling" {
				w.release()
				if err := w.tell(pod, false); err != nil {
					w.log.Debug("tell before pull", "err", err)
				}
			}
		},
	})
}

func (w *Worker) pullSecrets(ctx context.Context, pod *corev1.Pod) []corev1.Secret {
	var out []corev1.Secret
	var missing []string
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		s, err := w.host.Objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, ref.Name)
			continue
		}
		out = append(out, *s)
	}
	if len(missing) > 0 && ctx.Err() == nil {
		w.event("", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf(
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.",
			strings.Join(missing, ", ")))
	}
	return out
}

// compile makes the specification of a container from everything it refers to.
func (w *Worker) compile(ctx context.Context, pod *corev1.Pod, s plan.Start, img podman.Image) (podman.ContainerSpec, error) {
	hostname, err := podfile.UTSName(pod, w.host.ClusterDomain)
	if err != nil {
		return podman.ContainerSpec{}, err
	}
	env, err := w.env(w.urgent, pod, s.Spec) // see urgent
	if err != nil {
		return podman.ContainerSpec{}, configError(err)
	}
	vols, err := w.host.Volumes.Mounts(ctx, volume.MountRequest{Pod: pod, Container: s.Spec, Paths: w.paths, Env: env})
	if err != nil {
		return podman.ContainerSpec{}, err
	}
	ipc, err := w.ipc(ctx, pod)
	if err != nil {
		return podman.ContainerSpec{}, err
	}
	group, _ := w.host.Groups.Get(w.uid)
	in := podspec.Input{
		Pod: pod, Container: s.Spec, Init: s.Init, Attempt: s.Attempt, Image: img, Env: env,
		PodID: group.ID, NetNS: w.at.NetNS, Hostname: hostname, IPC: ipc,
		ResolvConf: filepath.Join(w.dir(), "resolv.conf"), Hosts: filepath.Join(w.dir(), "etc-hosts"),
		LogPath: w.logPath(pod, s.Spec.Name, s.Attempt), Host: w.host.Facts(),
		TerminationLog: w.terminationLog(s.Spec.Name, s.Attempt),
	}
	for _, m := range vols {
		in.Mounts = append(in.Mounts, podspec.Mount{
			HostPath: m.HostPath, ContainerPath: m.ContainerPath, ReadOnly: m.ReadOnly,
			Propagation: propagation(m.Propagation), Relabel: m.Relabel,
		})
	}
	if err := prepareFiles(in.LogPath, in.TerminationLog); err != nil {
		return podman.ContainerSpec{}, err
	}
	spec, warnings, err := podspec.Container(in)
	for _, msg := range warnings {
		w.note("HostLimitation", msg)
	}
	return spec, err
}

// configError shortens an API error to what upstream shows.
func configError(err error) error {
	if status, ok := err.(apierrors.APIStatus); ok {
		return errors.New(status.Status().Message)
	}
	return err
}

func propagation(p string) string {
	switch p {
	case "rslave":
		return string(corev1.MountPropagationHostToContainer)
	case "rshared":
		return string(corev1.MountPropagationBidirectional)
	}
	return ""
}

// prepareFiles makes the log's directory and the file the container may write its last words to.
func prepareFiles(log, termination string) error {
	if err := os.MkdirAll(filepath.Dir(log), 0o750); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(termination), 0o755); err != nil { //nolint:gosec // mounted into containers
		return err
	}
	f, err := os.OpenFile(termination, os.O_CREATE|os.O_WRONLY, 0o666) //nolint:gosec // any user of the container writes it
	if err != nil {
		return err
	}
	// The process's umask does not count here.
	return errors.Join(f.Chmod(0o666), f.Close())
}

func (w *Worker) env(ctx context.Context, pod *corev1.Pod, c *corev1.Container) ([]string, error) {
	services, err := w.host.Objects.ServiceList(pod.Namespace)
	if err != nil {
		return nil, err
	}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	return podspec.Env(pod, c, podspec.Sources{
		ConfigMap: func(ns, name string) (*corev1.ConfigMap, error) { return w.host.Objects.ConfigMap(ctx, ns, name) },
		Secret:    func(ns, name string) (*corev1.Secret, error) { return w.host.Objects.Secret(ctx, ns, name) },
		File:      w.envFile,
		Services:  podspec.ServiceEnv(pod.Namespace, links, services),
		PodIPs:    w.podIPs(pod), HostIPs: w.hostIPs(), Allocatable: w.host.Allocatable(),
	})
}

// envFile answers fileKeyRef, which is not supported yet.
func (w *Worker) envFile(string, string, string) (string, bool, error) {
	return "", false, errors.New("fileKeyRef is not supported yet")
}

// ipc is what the containers of a pod of several share: an IPC namespace and /dev/shm.
func (w *Worker) ipc(ctx context.Context, pod *corev1.Pod) (podspec.IPC, error) {
	if len(pod.Spec.Containers) < 2 || pod.Spec.HostIPC {
		return podspec.IPC{}, nil
	}
	root, err := volume.MemoryRoot(filepath.Join(w.host.DataDir, "pods"))
	if err != nil {
		return podspec.IPC{}, err
	}
	shared := podspec.IPC{ShmDir: filepath.Join(root, string(w.uid), "shm")}
	if err := os.MkdirAll(shared.ShmDir, 0o755); err != nil { //nolint:gosec // containers of any user
		return podspec.IPC{}, err
	}
	if err := os.Chmod(shared.ShmDir, os.ModeSticky|0o777); err != nil { //nolint:gosec // like any /dev/shm
		return podspec.IPC{}, err
	}
	for _, c := range w.host.Ledger.Of(w.uid) {
		e, ok := w.host.Ledger.Get(c.ID)
		if !ok || e.State != plan.Running || c.Init {
			continue
		}
		if e.PID == 0 {
			x, err := w.host.Runtime.Inspect(ctx, c.ID)
			if err != nil || x.Pid == 0 || x.State != podman.Running {
				continue
			}
			e.PID = x.Pid
			w.host.Ledger.Update(c.ID, func(o *ledger.Entry) { o.PID, o.Static = x.Pid, x.StaticDir })
		}
		shared.Pid = e.PID
		break
	}
	return shared, nil
}

// create makes the container. A name that is taken belongs to an attempt whose creation a killed
// agent did not live to see; nothing ran in it.
func (w *Worker) create(ctx context.Context, s plan.Start, img podman.Image, spec podman.ContainerSpec) (string, error) {
	id, err := w.host.Runtime.Create(ctx, spec)
	if errors.Is(err, podman.ErrConflict) {
		if err := w.host.Runtime.Remove(ctx, spec.Name, true); err != nil {
			return "", w.startFailed(s, reasonCreateError, err)
		}
		id, err = w.host.Runtime.Create(ctx, spec)
	}
	if errors.Is(err, podman.ErrNotFound) {
		w.host.Images.Lost(s.Spec.Image)
		w.host.Groups.Remove(w.uid)
		w.sandbox = false
	}
	if err != nil {
		return "", w.startFailed(s, reasonCreateError, err)
	}
	w.host.Ledger.Add(ledger.Entry{UID: w.uid, Container: plan.Container{
		ID: id, Name: s.Spec.Name, Init: s.Init, Attempt: s.Attempt, Hash: podspec.Hash(s.Spec), Boot: w.host.Boot,
		State: plan.Created, Created: w.host.Now(),
		Image: image.Name(img, s.Spec.Image), ImageID: ledger.ImageID(img.ID, img.RepoDigests),
	}})
	w.event(s.Spec.Name, corev1.EventTypeNormal, "Created", "Container created")
	return id, nil
}

// launch starts a created container and has it probed.
func (w *Worker) launch(ctx context.Context, pod *corev1.Pod, s plan.Start, id string) error {
	begun := w.host.Now()
	if err := w.host.Runtime.Start(ctx, id); err != nil {
		if ctx.Err() == nil && !errors.Is(err, podman.ErrUnavailable) {
			w.cannotRun(id, err)
		}
		return w.startFailed(s, reasonRunError, err)
	}
	w.host.Ledger.Update(id, func(e *ledger.Entry) {
		if e.State == plan.Exited { // it was quick
			e.Started = begun
			return
		}
		e.State, e.Started = plan.Running, w.host.Now()
	})
	w.event(s.Spec.Name, corev1.EventTypeNormal, "Started", "Container started")
	w.host.Launched(id)
	w.watch(pod, id)
	return nil
}

// cannotRun records a container that Podman could not start as one that ended at once.
func (w *Worker) cannotRun(id string, err error) {
	msg := words(err).Error()
	code := int32(128)
	switch {
	case strings.Contains(msg, "not found"), strings.Contains(msg, "no such file"), strings.Contains(msg, "No such file"):
		code = 127
	case strings.Contains(msg, "ermission denied"):
		code = 126
	}
	now := w.host.Now()
	w.host.Ledger.Update(id, func(e *ledger.Entry) {
		e.State, e.ExitCode, e.Reason, e.Message = plan.Exited, code, plan.ReasonCannotRun, msg
		e.Started, e.Finished, e.Settled = now, now, true
	})
}

// watch has a running container probed.
func (w *Worker) watch(pod *corev1.Pod, id string) {
	e, ok := w.host.Ledger.Get(id)
	if !ok || e.Init || e.State != plan.Running {
		return
	}
	spec := plan.SpecOf(pod, e.Name)
	if spec == nil || spec.LivenessProbe == nil && spec.ReadinessProbe == nil && spec.StartupProbe == nil {
		return
	}
	t := w.target(pod, spec, e.Container)
	t.StartedAt = t.StartedAt.Add(firstProbe)
	for _, st := range w.Base(pod).ContainerStatuses {
		if st.ContainerID == plan.ContainerID(id) {
			t.Started, t.Ready = st.Started != nil && *st.Started, st.Ready
		}
	}
	w.host.Probes.Add(t)
}

func (w *Worker) target(pod *corev1.Pod, spec *corev1.Container, c plan.Container) probe.Target {
	t := probe.Target{Pod: pod, Container: spec, ContainerID: c.ID, StartedAt: c.Started}
	if ips := w.podIPs(pod); len(ips) > 0 {
		t.PodIP = ips[0]
	} else {
		t.PodIP = w.Base(pod).PodIP // it is to be stopped and was not adopted
	}
	return t
}

// postStart runs the hook. A container whose hook fails is killed; its restart policy decides.
func (w *Worker) postStart(ctx context.Context, pod *corev1.Pod, s plan.Start, id string) error {
	if s.Spec.Lifecycle == nil || s.Spec.Lifecycle.PostStart == nil {
		return nil
	}
	e, ok := w.host.Ledger.Get(id)
	if !ok {
		return nil
	}
	msg, err := w.host.Prober.Hook(w.urgent, w.target(pod, s.Spec, e.Container), // see urgent
		s.Spec.Lifecycle.PostStart)
	if err == nil || w.urgent.Err() != nil {
		return w.hurried()
	}
	w.event(s.Spec.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
	if killErr := w.killAll(ctx, pod, []plan.Kill{{Container: e.Container, Spec: s.Spec, Message: "FailedPostStartHook"}}); killErr != nil {
		return killErr
	}
	return &startError{reasonPostStart, errors.New(strings.TrimSpace(msg))}
}
