package objects

import (
	"context"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
)

const (
	// reread is how old a ConfigMap or Secret may be when a new container is made from it: a burst
	// of pods reads each object once.
	reread = time.Second
	// forget is how long an object is remembered that nobody asks for.
	forget = 5 * time.Minute
)

// Objects reads what pods refer to, one object at a time: that is all the Node authorizer allows, and
// a watch per object would cost more than a node's few hundred small reads per minute.
type Objects struct {
	client kubernetes.Interface
	// Services must be set before it is asked for.
	Services    corelisters.ServiceLister
	allocatable func() corev1.ResourceList
	now         func() time.Time

	mu     sync.Mutex
	cached map[objectKey]*object
}

type objectKey struct{ kind, namespace, name string }

type object struct {
	lock  chan struct{} // capacity 1, full while it is read, so that many who ask cause one read
	at    time.Time
	value any
	err   error
}

// New returns Objects. allocatable is what the node gives pods.
func New(client kubernetes.Interface, allocatable func() corev1.ResourceList, now func() time.Time) *Objects {
	return &Objects{client: client, allocatable: allocatable, now: now, cached: map[objectKey]*object{}}
}

// ConfigMap implements volume.Sources.
func (o *Objects) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return read(ctx, o, objectKey{"ConfigMap", namespace, name}, func() (*corev1.ConfigMap, error) {
		return o.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	}, func(c *corev1.ConfigMap) bool { return c.Immutable != nil && *c.Immutable })
}

// Secret implements volume.Sources.
func (o *Objects) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return read(ctx, o, objectKey{"Secret", namespace, name}, func() (*corev1.Secret, error) {
		return o.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	}, func(s *corev1.Secret) bool { return s.Immutable != nil && *s.Immutable })
}

// Token implements volume.Sources.
func (o *Objects) Token(ctx context.Context, namespace, serviceAccount string,
	request *authenticationv1.TokenRequest,
) (*authenticationv1.TokenRequest, error) {
	return o.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
}

// NodeAllocatable implements volume.Sources.
func (o *Objects) NodeAllocatable() corev1.ResourceList { return o.allocatable() }

// ServiceList returns the services a pod may be told of.
func (o *Objects) ServiceList(namespace string) ([]*corev1.Service, error) {
	all, err := o.Services.Services(namespace).List(labels.Everything())
	if err != nil || namespace == metav1.NamespaceDefault {
		return all, err
	}
	if master, err := o.Services.Services(metav1.NamespaceDefault).Get("kubernetes"); err == nil {
		all = append(all, master)
	}
	return all, nil
}

func read[T any](ctx context.Context, o *Objects, key objectKey, get func() (T, error), immutable func(T) bool) (T, error) {
	o.mu.Lock()
	x := o.cached[key]
	if x == nil {
		x = &object{lock: make(chan struct{}, 1)}
		o.cached[key] = x
	}
	o.mu.Unlock()
	var none T
	select {
	case x.lock <- struct{}{}:
	case <-ctx.Done(): // without a leader those before it wait for theirs, one after the other
		return none, context.Cause(ctx)
	}
	defer func() { <-x.lock }()
	if v, ok := x.value.(T); ok && x.err == nil && (immutable(v) || o.now().Sub(x.at) < reread) {
		return v, nil
	}
	v, err := get()
	if apierrors.IsNotFound(err) {
		// In the words of a kubelet, which names the kind in the singular.
		err = apierrors.NewNotFound(schema.GroupResource{Resource: strings.ToLower(key.kind)}, key.name)
	}
	x.value, x.err, x.at = v, err, o.now()
	if err != nil {
		return none, err
	}
	return v, nil
}

// Expire drops what nobody has asked for lately.
func (o *Objects) Expire() {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.now().Add(-forget)
	for k, x := range o.cached {
		select {
		case x.lock <- struct{}{}:
			if x.at.Before(old) {
				delete(o.cached, k)
			}
			<-x.lock
		default: // it is being read
		}
	}
}
