package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/agent/ledger"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/agent/podfile"
	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// ensureSandbox makes what all containers of the pod share: volumes, network, files, Podman's pod.
// Everything in it is idempotent, so it is also how a pod of a former agent is taken over; then
// volumes that cannot be refreshed do not stand in the way.
func (w *Worker) ensureSandbox(ctx context.Context, pod *corev1.Pod, takeOver bool) error {
	if w.sandbox {
		if w.paths == nil || w.synced != volumeKey(pod) {
			return w.setupVolumes(pod)
		}
		return nil
	}
	w.known = true
	for _, n := range w.host.Volumes.Notes(pod) {
		w.note("VolumeNote", n)
	}
	if err := w.setupVolumes(pod); err != nil && !takeOver {
		return err
	}
	if err := w.attach(ctx, pod); err != nil {
		return err
	}
	if err := w.files(pod); err != nil {
		return sandboxError{err}
	}
	if err := w.group(ctx, pod); err != nil {
		return err
	}
	w.sandbox = true
	w.publish(ctx, pod)
	return nil
}

// sandboxError is a failure to make the pod's shared part.
type sandboxError struct{ error }

func (e sandboxError) Unwrap() error { return e.error }

// tellSandbox writes the event of a sandbox that could not be made.
func (w *Worker) tellSandbox(err error) {
	var bad sandboxError
	if errors.As(err, &bad) {
		w.event("", corev1.EventTypeWarning, "FailedCreatePodSandBox",
			fmt.Sprintf("Failed to create pod sandbox: %v", bad.error))
	}
}

func (w *Worker) attach(ctx context.Context, pod *corev1.Pod) error {
	if pod.Spec.HostNetwork {
		return nil
	}
	at, err := w.host.Network.Add(ctx, string(w.uid))
	if err != nil {
		return sandboxError{err}
	}
	w.at = at
	return nil
}

// group makes Podman's pod, or finds the one a killed agent made.
func (w *Worker) group(ctx context.Context, pod *corev1.Pod) error {
	if x, ok := w.host.Groups.Get(w.uid); ok {
		if x.Boot == w.host.Boot || !podspec.SharesPID(pod) {
			return nil
		}
		// A pod with an infra container does not survive a boot: Podman forgets its control group.
		// How its containers ended is told before their records go.
		if err := errors.Join(w.tell(pod, false), w.host.Runtime.RemovePod(ctx, x.ID)); err != nil {
			return err
		}
		for _, c := range w.host.Ledger.Of(w.uid) {
			w.host.Ledger.Remove(c.ID)
		}
		w.host.Groups.Remove(w.uid)
	}
	id, err := w.host.Runtime.CreatePod(ctx, podspec.Pod(pod, w.host.Facts()))
	if errors.Is(err, podman.ErrConflict) {
		var list []podman.Pod
		list, err = w.host.Runtime.Pods(ctx, map[string]string{podspec.LabelUID: string(w.uid)})
		if err == nil && len(list) == 1 {
			id = list[0].ID
		}
	}
	switch {
	case errors.Is(err, podman.ErrUnavailable):
		return err
	case err != nil:
		return sandboxError{err}
	case id == "":
		return sandboxError{fmt.Errorf("the name %s is taken by a pod of somebody else", podspec.PodName(pod))}
	}
	w.host.Groups.Add(w.uid, ledger.Group{ID: id, Boot: w.host.Boot})
	return nil
}

// publish opens the pod's host ports.
func (w *Worker) publish(ctx context.Context, pod *corev1.Pod) {
	if pod.Spec.HostNetwork || len(w.ports) > 0 {
		return
	}
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			if p.HostPort == 0 {
				continue
			}
			hp := netd.HostPort{
				Port: uint16(p.HostPort), PodPort: uint16(p.ContainerPort), //nolint:gosec // validated by the API
				Protocol: string(p.Protocol), PodIP: w.at.IP,
			}
			if p.HostIP != "" {
				if ip, err := netip.ParseAddr(p.HostIP); err == nil {
					hp.IP = ip
				}
			}
			c, err := w.host.Network.Publish(ctx, hp)
			if err != nil {
				// Without its port the pod is of less use, but it runs; the next start tries again.
				w.event("", corev1.EventTypeWarning, "HostPortFailed", err.Error())
				continue
			}
			w.ports = append(w.ports, c)
		}
	}
}

func (w *Worker) closePorts() {
	for _, p := range w.ports {
		if err := p.Close(); err != nil {
			w.log.Debug("close host port", "err", err)
		}
	}
	w.ports = nil
}

func (w *Worker) dir() string { return filepath.Join(w.host.DataDir, "pods", string(w.uid)) }

// LogDir is where the logs of a pod are, below the data directory; its name ends in the UID.
func LogDir(root string, pod *corev1.Pod) string {
	return filepath.Join(root, "logs", strings.Join([]string{pod.Namespace, pod.Name, string(pod.UID)}, "_"))
}

// LogPath is the log of one attempt at a container.
func LogPath(root string, pod *corev1.Pod, c plan.Container) string {
	return filepath.Join(LogDir(root, pod), c.Name, fmt.Sprintf("%d.log", c.Attempt))
}

func (w *Worker) logPath(pod *corev1.Pod, c string, attempt int) string {
	return LogPath(w.host.DataDir, pod, plan.Container{Name: c, Attempt: attempt})
}

func (w *Worker) terminationLog(c string, attempt int) string {
	return filepath.Join(w.dir(), "containers", c, fmt.Sprintf("%d-termination-log", attempt))
}

// podIPs are the pod's own addresses, the node's with hostNetwork.
func (w *Worker) podIPs(pod *corev1.Pod) []string {
	if pod.Spec.HostNetwork {
		return w.hostIPs()
	}
	if w.at.IP.IsValid() {
		return []string{w.at.IP.String()}
	}
	return nil
}

// files writes the pod's hosts and resolv.conf.
func (w *Worker) files(pod *corev1.Pod) error {
	if err := os.MkdirAll(w.dir(), 0o755); err != nil { //nolint:gosec // containers of any user read below
		return err
	}
	nodeHosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	hosts := podfile.Hosts(pod, w.podIPs(pod), w.host.ClusterDomain, nodeHosts)
	nodeResolv, err := os.ReadFile(nodeResolvConf())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dns := podfile.DNS{NodeFile: nodeResolv, ClusterDomain: w.host.ClusterDomain}
	for _, ip := range w.host.ClusterDNS {
		dns.ClusterServers = append(dns.ClusterServers, ip.String())
	}
	resolv, remark := podfile.Resolv(pod, dns)
	if remark != "" {
		w.note("DNSConfigForming", remark)
	}
	for name, data := range map[string][]byte{"etc-hosts": hosts, "resolv.conf": resolv} {
		path := filepath.Join(w.dir(), name)
		if err := os.WriteFile(path, data, 0o644); err != nil { //nolint:gosec // containers read it
			return err
		}
	}
	return nil
}

// nodeResolvConf is the file with the node's real servers: systemd-resolved's stub on 127.0.0.53
// is out of a pod's reach.
func nodeResolvConf() string {
	const real = "/run/systemd/resolve/resolv.conf"
	if target, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil &&
		target == "/run/systemd/resolve/stub-resolv.conf" {
		if _, err := os.Stat(real); err == nil {
			return real
		}
	}
	return "/etc/resolv.conf"
}

// adopt takes over what a former agent made, once, when the worker is new.
func (w *Worker) adopt(ctx context.Context, pod *corev1.Pod) error {
	if w.adopted {
		return nil
	}
	containers := w.host.Ledger.Of(w.uid)
	here := false
	for i := range containers {
		c := &containers[i]
		w.known = true
		here = here || c.Boot == w.host.Boot
		w.backoffs[c.Name] = plan.Resumed(plan.Latest(containers, c.Name))
	}
	if here {
		if err := w.ensureSandbox(ctx, pod, true); err != nil {
			w.tellSandbox(err)
			return err
		}
		for i := range containers {
			w.watch(pod, containers[i].ID)
		}
	}
	w.adopted = true
	return nil
}
