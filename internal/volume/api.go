package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
)

// Sources are the API objects that volumes are made from. Implementations answer from a cache where
// they can; errors are passed to the user unchanged, so they carry the API's own words
// (`configmap "x" not found`) and satisfy apierrors.IsNotFound.
type Sources interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token asks the API server for a service account token. Volumes caches and renews them.
	Token(ctx context.Context, namespace, serviceAccount string,
		request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	// NodeAllocatable answers resourceFieldRefs of containers that set no limit.
	NodeAllocatable() corev1.ResourceList
}

// Change sets owner, group and mode of one file, in ids as a container sees them.
type Change struct {
	Path string
	UID  int          // -1: leave
	GID  int          // -1: leave
	Mode *os.FileMode // nil: leave; os.ModeSetgid is honoured
}

// Owner does what needs the ids of containers. For a rootful node that is the node itself (Direct);
// for a rootless one those ids exist in Podman's user namespace only (Unshare).
type Owner interface {
	// Apply makes all changes, in order. Symbolic links are not followed.
	Apply(ctx context.Context, changes []Change) error
	// RemoveAll removes path and everything below it, whoever owns it. No error when it is not there.
	RemoveAll(ctx context.Context, path string) error
}

// Config is what Volumes need to know.
type Config struct {
	// Dir holds one directory per pod UID (DIR/pods).
	Dir string
	// MemoryDir holds memory-backed volumes; it must be on a tmpfs that containers may execute from.
	// Empty: MemoryRoot chooses.
	MemoryDir string
	// Sources are required.
	Sources Sources
	// Rootless is true when this process is not root and containers live in a user namespace.
	Rootless bool
	// Owner is Direct or Unshare by Rootless when nil.
	Owner Owner
	Log   *slog.Logger
}

// Error tells why one volume of a pod is not there. Its text is that of a kubelet's FailedMount event.
type Error struct {
	Volume string
	Err    error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errors returns the errors of single volumes that a Setup error consists of, in the pod's order:
// one FailedMount event each.
func Errors(err error) []*Error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // errors.Join's
		var list []*Error
		for _, e := range joined.Unwrap() {
			list = append(list, Errors(e)...)
		}
		return list
	}
	if one := (*Error)(nil); errors.As(err, &one) {
		return []*Error{one}
	}
	return nil
}

// Mount is one bind mount of a container.
type Mount struct {
	Name          string // of the volume
	HostPath      string
	ContainerPath string
	ReadOnly      bool
	// Propagation is "private", "rslave" or "rshared".
	Propagation string
	// Relabel: the directory is ours, an SELinux host must label it for containers (shared, "z").
	Relabel bool
}

// MountRequest asks for the mounts of one container.
type MountRequest struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	// Paths is what Setup returned.
	Paths map[string]string
	// Env is the container's finished environment ("NAME=value"), for subPathExpr.
	Env []string
}
