package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/agent/podfile"
	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// ensureSandbox makes what all containers of the pod share: volumes, network, files, Podman's pod.
// Everything in it is idempotent, so it is also how a pod of a former agent is taken over; then
// volumes that cannot be refreshed do not stand in the way.
func (w *worker) ensureSandbox(ctx context.Context, pod *corev1.Pod, takeOver bool) error {
	if w.sandbox {
		if w.paths == nil || w.synced != volumeKey(pod) {
			return w.setupVolumes(ctx, pod)
		}
		return nil
	}
	w.known = true
	for _, n := range w.a.cfg.Volumes.Notes(pod) {
		w.note("VolumeNote", n)
	}
	if err := w.setupVolumes(ctx, pod); err != nil && !takeOver {
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
func (w *worker) tellSandbox(err error) {
	var bad sandboxError
	if errors.As(err, &bad) {
		w.event("", corev1.EventTypeWarning, "FailedCreatePodSandBox",
			fmt.Sprintf("Failed to create pod sandbox: %v", bad.error))
	}
}

func (w *worker) attach(ctx context.Context, pod *corev1.Pod) error {
	if pod.Spec.HostNetwork {
		return nil
	}
	at, err := w.a.cfg.Network.Add(ctx, string(w.uid))
	if err != nil {
		return sandboxError{err}
	}
	w.at = at
	return nil
}

// group makes Podman's pod, or finds the one a killed agent made.
func (w *worker) group(ctx context.Context, pod *corev1.Pod) error {
	if x, ok := w.a.groups.get(w.uid); ok {
		if x.boot == w.a.boot || !podspec.SharesPID(pod) {
			return nil
		}
		// A pod with an infra container does not survive a boot: Podman forgets its control group.
		// How its containers ended is told before their records go.
		if err := errors.Join(w.tell(ctx, pod, false), w.a.cfg.Runtime.RemovePod(ctx, x.id)); err != nil {
			return err
		}
		for _, c := range w.a.store.of(w.uid) {
			w.a.store.remove(c.ID)
		}
		w.a.groups.remove(w.uid)
	}
	id, err := w.a.cfg.Runtime.CreatePod(ctx, podspec.Pod(pod, w.a.host()))
	if errors.Is(err, podman.ErrConflict) {
		var list []podman.Pod
		list, err = w.a.cfg.Runtime.Pods(ctx, map[string]string{podspec.LabelUID: string(w.uid)})
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
	w.a.groups.add(w.uid, group{id, w.a.boot})
	return nil
}

// publish opens the pod's host ports.
func (w *worker) publish(ctx context.Context, pod *corev1.Pod) {
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
			c, err := w.a.cfg.Network.Publish(ctx, hp)
			if err != nil {
				// Without its port the pod is of less use, but it runs; the next start tries again.
				w.event("", corev1.EventTypeWarning, "HostPortFailed", err.Error())
				continue
			}
			w.ports = append(w.ports, c)
		}
	}
}

func (w *worker) closePorts() {
	for _, p := range w.ports {
		if err := p.Close(); err != nil {
			w.log.Debug("close host port", "err", err)
		}
	}
	w.ports = nil
}

func (w *worker) dir() string { return filepath.Join(w.a.cfg.DataDir, "pods", string(w.uid)) }

func logDir(root string, pod *corev1.Pod) string {
	return filepath.Join(root, "logs", strings.Join([]string{pod.Namespace, pod.Name, string(pod.UID)}, "_"))
}

func (w *worker) logPath(pod *corev1.Pod, c string, attempt int) string {
	return filepath.Join(logDir(w.a.cfg.DataDir, pod), c, fmt.Sprintf("%d.log", attempt))
}

func (w *worker) terminationLog(c string, attempt int) string {
	return filepath.Join(w.dir(), "containers", c, fmt.Sprintf("%d-termination-log", attempt))
}

// podIPs are the pod's own addresses, the node's with hostNetwork.
func (w *worker) podIPs(pod *corev1.Pod) []string {
	if pod.Spec.HostNetwork {
		return w.a.hostIPs()
	}
	if w.at.IP.IsValid() {
		return []string{w.at.IP.String()}
	}
	return nil
}

// files writes the pod's hosts and resolv.conf.
func (w *worker) files(pod *corev1.Pod) error {
	if err := os.MkdirAll(w.dir(), 0o755); err != nil { //nolint:gosec // containers of any user read below
		return err
	}
	nodeHosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	hosts := podfile.Hosts(pod, w.podIPs(pod), w.a.cfg.ClusterDomain, nodeHosts)
	nodeResolv, err := os.ReadFile(nodeResolvConf())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dns := podfile.DNS{NodeFile: nodeResolv, ClusterDomain: w.a.cfg.ClusterDomain}
	for _, ip := range w.a.cfg.ClusterDNS {
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
func (w *worker) adopt(ctx context.Context, pod *corev1.Pod) error {
	if w.adopted {
		return nil
	}
	containers := w.a.store.of(w.uid)
	here := false
	for i := range containers {
		c := &containers[i]
		w.known = true
		here = here || c.Boot == w.a.boot
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
