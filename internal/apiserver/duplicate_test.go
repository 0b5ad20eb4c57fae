package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/podman-swarm/podman-swarm/internal/control/duplicate"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// TestDuplicates gives two Services one address, as a merge does, behind the server's back, and has the
// decider take them apart: through the real registries, which know what may change and what not.
func TestDuplicates(t *testing.T) {
	n := start(t, t.TempDir())
	c := n.admin(t)
	n.decideDuplicates(t)
	t.Run("cluster IP", func(t *testing.T) {
		older, newer := byAge(fixed(t, c, "ip-a", "10.43.77.11", 30211), fixed(t, c, "ip-b", "10.43.77.12", 30212))
		taken := older.Spec.ClusterIP
		n.overwrite(t, newer, []byte(newer.Spec.ClusterIP), []byte(taken))
		got := n.apart(t, c, newer, func(s *corev1.Service) bool { return s.Spec.ClusterIP != taken })
		if own := newer.Spec.Ports[0].NodePort; got.Spec.Ports[0].NodePort != own {
			t.Errorf("its node port, which was its own, was %d and is %d", own, got.Spec.Ports[0].NodePort)
		}
		untouched(t, c, older)
		// The address is on record as the older one's: nobody else gets it.
		thief := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "thief"}, Spec: corev1.ServiceSpec{
			ClusterIP: taken, Ports: []corev1.ServicePort{{Port: 80}},
		}}
		if _, err := c.CoreV1().Services("default").Create(t.Context(), thief, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a third Service with the address: %v", err)
		}
	})
	t.Run("node port", func(t *testing.T) {
		older, newer := byAge(fixed(t, c, "port-a", "10.43.77.21", 30221), fixed(t, c, "port-b", "10.43.77.22", 30222))
		taken := older.Spec.Ports[0].NodePort
		n.overwrite(t, newer, binary.AppendUvarint(nil, uint64(newer.Spec.Ports[0].NodePort)), binary.AppendUvarint(nil, uint64(taken)))
		got := n.apart(t, c, newer, func(s *corev1.Service) bool {
			return len(s.Spec.Ports) == 1 && s.Spec.Ports[0].NodePort != 0 && s.Spec.Ports[0].NodePort != taken
		})
		if own := newer.Spec.ClusterIP; got.Spec.ClusterIP != own {
			t.Errorf("its cluster IP, which was its own, was %s and is %s", own, got.Spec.ClusterIP)
		}
		untouched(t, c, older)
		eventually(t, "the port is on record as the older one's", func(context.Context) (bool, error) {
			return n.chain.core.nodePorts.Has(int(taken)), nil
		})
	})
}

func (n *node) decideDuplicates(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	decider, err := duplicate.New(duplicate.Config{
		Client: client(t, n.Loopback()), Informers: n.Informers(), Events: record.NewFakeRecorder(100), Log: logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Informers().Start(ctx.Done())
	var running sync.WaitGroup
	running.Go(func() { decider.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// byAge orders two Services as the decider does: ages are whole seconds, so mostly by UID.
func byAge(a, b *corev1.Service) (older, newer *corev1.Service) {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c < 0 || c == 0 && a.UID < b.UID {
		return a, b
	}
	return b, a
}

func fixed(t *testing.T, c kubernetes.Interface, name, ip string, port int32) *corev1.Service {
	t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"of": name}}, Spec: nodePortSpec(port)}
	s.Spec.ClusterIP = ip
	got, err := c.CoreV1().Services("default").Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// overwrite changes the stored form of a Service, which is of the same length.
func (n *node) overwrite(t *testing.T, s *corev1.Service, old, new []byte) {
	t.Helper()
	key := fmt.Sprintf("/services/specs/%s/%s", s.Namespace, s.Name)
	e, ok := n.store.View().Get(key)
	if !ok || !bytes.Contains(e.Value, old) {
		t.Fatalf("%s: %v, without %q", key, ok, old)
	}
	w := state.Write{Key: key, Value: bytes.ReplaceAll(e.Value, old, new), Expect: state.Any}
	if _, err := n.store.Apply(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

// apart waits until a Service has what own says, and checks that it is the same Service otherwise.
func (n *node) apart(t *testing.T, c kubernetes.Interface, s *corev1.Service, own func(*corev1.Service) bool) (got *corev1.Service) {
	t.Helper()
	eventually(t, s.Name+" has an address of its own", func(ctx context.Context) (done bool, err error) {
		got, err = c.CoreV1().Services("default").Get(ctx, s.Name, metav1.GetOptions{})
		_, pending := got.Annotations[duplicate.PendingAnnotation]
		return err == nil && !pending && got.Spec.ClusterIP != "" && own(got), err
	})
	if got.UID != s.UID || got.Labels["of"] != s.Name || got.Spec.Type != s.Spec.Type || got.Spec.ExternalName != "" {
		t.Errorf("it is not what it was: %+v", got)
	}
	return got
}

func untouched(t *testing.T, c kubernetes.Interface, s *corev1.Service) {
	t.Helper()
	got, err := c.CoreV1().Services("default").Get(t.Context(), s.Name, metav1.GetOptions{})
	if err != nil || got.ResourceVersion != s.ResourceVersion {
		t.Errorf("the older Service was touched: %v, %v", got.Spec, err)
	}
}
