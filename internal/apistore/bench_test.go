package apistore

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes/scheme"
)

// The benchmarks store pods as the product does: real core/v1 objects in protobuf, unencrypted.

func newBenchStore(b *testing.B) *fixture {
	b.Helper()
	proto := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	codecs := serializer.NewCodecFactory(scheme.Scheme)
	st := openState(b)
	s, err := New(st).newStore(storeConfig{
		codec:    codecs.CodecForVersions(proto, proto, corev1.SchemeGroupVersion, corev1.SchemeGroupVersion),
		resource: schema.GroupResource{Resource: "pods"},
		prefix:   "/pods",
		newFunc:  func() kruntime.Object { return &corev1.Pod{} },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.close)
	return &fixture{store: s, state: st}
}

// benchPod is about as large as a pod of a Deployment: 2.3 KB in protobuf.
func benchPod(i int) *corev1.Pod {
	name := fmt.Sprintf("web-6f7c9d8b5-%05d", i)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "ns", UID: "5f1c1e0a-6f2c-4a53-9f0e-0d9b1a9c7e11", Generation: 1,
			Labels:          map[string]string{"app": "web", "pod-template-hash": "6f7c9d8b5", "tier": "frontend"},
			Annotations:     map[string]string{"checksum/config": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-6f7c9d8b5", UID: "c2a7"}},
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
				FieldsV1: metav1.NewFieldsV1(fmt.Sprintf(`{"f:metadata":{"f:labels":{".":{},"f:app":{},"k":%q}}}`, make([]byte, 200))),
			}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.0.17", HostIP: "192.168.1.10"},
	}
	for c := range 2 {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: fmt.Sprint("c", c), Image: "registry.example.com/team/web:v1.2.3",
			Command: []string{"/bin/web", "--listen=:8080"},
			Env:     []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "some longer value"}},
			Ports:   []corev1.ContainerPort{{ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
			}},
			VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
		})
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, Reason: "x"})
	}
	return p
}

// cpu makes the benchmark report the process's CPU time per operation, which says the same on a
// busy machine as on an idle one.
func cpu(b *testing.B) func() {
	b.Helper()
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func benchKey(i int) string { return "/pods/ns/" + fmt.Sprintf("web-6f7c9d8b5-%05d", i) }

func fill(b *testing.B, f *fixture, n int) {
	b.Helper()
	for i := range n {
		if err := f.Create(b.Context(), benchKey(i), benchPod(i), nil, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func touch(ctx context.Context, f *fixture, i, n int) error {
	return f.GuaranteedUpdate(ctx, benchKey(i), &corev1.Pod{}, false, nil,
		storage.SimpleUpdate(func(obj kruntime.Object) (kruntime.Object, error) {
			obj.(*corev1.Pod).Labels["n"] = strconv.Itoa(n)
			return obj, nil
		}), nil)
}

func BenchmarkCreate(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			f := newBenchStore(b)
			var next atomic.Int64
			b.SetParallelism(max(1, writers/runtime.GOMAXPROCS(0)))
			if writers == 1 {
				defer cpu(b)()
				for i := 0; b.Loop(); i++ {
					if err := f.Create(b.Context(), benchKey(i), benchPod(i), &corev1.Pod{}, 0); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			defer cpu(b)()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := int(next.Add(1))
					if err := f.Create(b.Context(), benchKey(i), benchPod(i), &corev1.Pod{}, 0); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkGet(b *testing.B) {
	f := newBenchStore(b)
	fill(b, f, 1000)
	for _, rv := range []string{"", "0"} {
		b.Run("rv="+rv, func(b *testing.B) {
			b.ReportAllocs()
			defer cpu(b)()
			for i := 0; b.Loop(); i++ {
				if err := f.Get(b.Context(), benchKey(i%1000), storage.GetOptions{ResourceVersion: rv}, &corev1.Pod{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGuaranteedUpdate(b *testing.B) {
	f := newBenchStore(b)
	fill(b, f, 1000)
	b.Run("changed", func(b *testing.B) {
		defer cpu(b)()
		for i := 0; b.Loop(); i++ {
			if err := touch(b.Context(), f, i%1000, i); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		if err := touch(b.Context(), f, 0, 0); err != nil {
			b.Fatal(err)
		}
		defer cpu(b)()
		for b.Loop() {
			if err := touch(b.Context(), f, 0, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkList1000(b *testing.B) {
	f := newBenchStore(b)
	fill(b, f, 1000)
	for name, limit := range map[string]int64{"whole": 0, "page=500": 500} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			pred := storage.Everything
			pred.Limit = limit
			defer cpu(b)()
			for b.Loop() {
				opts := storage.ListOptions{ResourceVersion: "", Recursive: true, Predicate: pred}
				if err := f.GetList(b.Context(), "/pods/", opts, &corev1.PodList{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// One operation is one update and its delivery to every watch.
func BenchmarkWatchFanOut(b *testing.B) {
	for _, watches := range []int{0, 1, 10} {
		b.Run(fmt.Sprint("watches=", watches), func(b *testing.B) {
			f := newBenchStore(b)
			fill(b, f, 1)
			got := make(chan struct{}, watches)
			for range watches {
				w, err := f.Watch(b.Context(), "/pods/", storage.ListOptions{
					ResourceVersion: strconv.FormatUint(f.state.Revision(), 10), Recursive: true, Predicate: storage.Everything,
				})
				if err != nil {
					b.Fatal(err)
				}
				defer w.Stop()
				go func() {
					for range w.ResultChan() {
						got <- struct{}{}
					}
				}()
			}
			defer cpu(b)()
			for i := 0; b.Loop(); i++ {
				if err := touch(b.Context(), f, 0, i); err != nil {
					b.Fatal(err)
				}
				for range watches {
					<-got
				}
			}
		})
	}
}

// What an idle watch costs in memory: buffers, channel, context, timer and stack.
func BenchmarkIdleWatch(b *testing.B) {
	f := newBenchStore(b)
	fill(b, f, 1)
	pred := storage.Everything
	pred.AllowWatchBookmarks = true
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := memory()
	defer cpu(b)()
	for b.Loop() {
		w, err := f.Watch(b.Context(), "/pods/", storage.ListOptions{ResourceVersion: "0", Recursive: true, Predicate: pred})
		if err != nil {
			b.Fatal(err)
		}
		defer w.Stop()
		<-w.ResultChan()
	}
	b.ReportMetric(float64(memory()-before)/float64(b.N), "B/watch")
}
