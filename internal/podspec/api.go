package podspec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// Labels on everything we make in Podman.
const (
	LabelNode      = "io.podman-swarm.node"     // for people; nodes of one machine may share it
	LabelDataDir   = "io.podman-swarm.data-dir" // whose it is: one data directory is one node
	LabelBootID    = "io.podman-swarm.boot-id"
	LabelNamespace = "io.kubernetes.pod.namespace"
	LabelPod       = "io.kubernetes.pod.name"
	LabelUID       = "io.kubernetes.pod.uid"
	LabelContainer = "io.kubernetes.container.name"
	LabelAttempt   = "io.kubernetes.container.attempt"
	LabelHash      = "io.kubernetes.container.hash"
	LabelType      = "io.kubernetes.container.type"
)

// Values of LabelType.
const (
	TypeInit    = "init"
	TypeRegular = "regular"
)

// Mount is a directory or file of the host in a container.
type Mount struct {
	HostPath, ContainerPath string
	ReadOnly                bool
	Propagation             string // a corev1.MountPropagationMode; "" = none
	Relabel                 bool   // ours to label for SELinux; never a hostPath
}

// Facts are what the host is and can do.
type Facts struct {
	Podman     podman.Info
	Node       string // this node's name
	DataDir    string // this node's data directory, the same on every start
	BootID     string // changes with every boot: a container of an older one did not end by itself
	SeccompDir string // where Localhost profiles are
	// Sysctls are what pods' network namespaces are set to. Every container is told them again, since
	// Podman sets some back to defaults of its own; what the pod asks for wins.
	Sysctls map[string]string
}

// IPC is what the containers of one pod share.
type IPC struct {
	Pid    int    // of a running container of the pod, whose IPC namespace is joined; 0 = a new one
	ShmDir string // a directory (mode 01777) on a tmpfs of the host that each of them has as /dev/shm; "" = its own
}

// Input of one container.
type Input struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Init      bool // an init container
	Attempt   int
	Image     podman.Image
	Env       []string // "NAME=value", as Env returns it
	Mounts    []Mount  // volumes, resolved

	PodID    string // Podman's pod
	NetNS    string // path of the pod's network namespace; "" = the host's
	Hostname string
	IPC      IPC

	Hosts          string // host path of the pod's /etc/hosts, "" = Podman's
	ResolvConf     string // host path of the pod's /etc/resolv.conf, "" = Podman's
	LogPath        string
	TerminationLog string // host path of an existing file, "" = none
	Host           Facts
}

// PodName is the Podman name of a pod.
func PodName(pod *corev1.Pod) string {
	return fmt.Sprintf("k8s_%s_%s_%s", pod.Namespace, pod.Name, pod.UID)
}

// Name is the Podman name of one attempt of a container.
func Name(pod *corev1.Pod, container string, attempt int) string {
	return fmt.Sprintf("k8s_%s_%s_%s_%s_%d", container, pod.Namespace, pod.Name, pod.UID, attempt)
}

// Ident is what our labels tell of a container or a pod.
type Ident struct {
	Node, DataDir       string
	BootID              string
	Namespace, Pod, UID string
	Container, Hash     string // empty on a pod
	Attempt             int
	Init                bool
}

// Identify reads our labels; ok is false for what is not ours.
func Identify(labels map[string]string) (id Ident, ok bool) {
	id = Ident{
		Node: labels[LabelNode], DataDir: labels[LabelDataDir], BootID: labels[LabelBootID],
		Namespace: labels[LabelNamespace], Pod: labels[LabelPod], UID: labels[LabelUID],
		Container: labels[LabelContainer], Hash: labels[LabelHash],
		Init: labels[LabelType] == TypeInit,
	}
	if id.DataDir == "" || id.UID == "" {
		return Ident{}, false
	}
	if a, err := strconv.Atoi(labels[LabelAttempt]); err == nil {
		id.Attempt = a
	}
	return id, true
}

func podLabels(pod *corev1.Pod, host Facts) map[string]string {
	return map[string]string{
		LabelNode: host.Node, LabelDataDir: host.DataDir, LabelBootID: host.BootID,
		LabelNamespace: pod.Namespace, LabelPod: pod.Name, LabelUID: string(pod.UID),
	}
}

func containerLabels(in Input) map[string]string {
	l := podLabels(in.Pod, in.Host)
	l[LabelContainer] = in.Container.Name
	l[LabelAttempt] = strconv.Itoa(in.Attempt)
	l[LabelHash] = Hash(in.Container)
	l[LabelType] = TypeRegular
	if in.Init {
		l[LabelType] = TypeInit
	}
	return l
}

// Hash tells whether a container must be replaced because its definition changed: like the kubelet's, it covers the
// name and the image, the two things by which an update of a running pod does that.
func Hash(c *corev1.Container) string {
	b, err := json.Marshal([]string{c.Name, c.Image})
	if err != nil {
		panic(err) // strings always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
