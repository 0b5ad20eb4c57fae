package apistore

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// klog starts this one when the process starts and never ends it.
		goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"),
	)
}

// sealPrefix is what the test transformer puts before every stored value.
const sealPrefix = "test!"

func exampleCodec(tb testing.TB) runtime.Codec {
	tb.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, add := range []func(*runtime.Scheme) error{example.AddToScheme, examplev1.AddToScheme} {
		if err := add(scheme); err != nil {
			tb.Fatal(err)
		}
	}
	return apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)
}

// openState opens a real store, a single voter on disk.
func openState(tb testing.TB) *state.Store {
	tb.Helper()
	s, err := state.Open(tb.Context(), state.Config{Dir: tb.TempDir(), NodeID: "n0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// fixture is the storage of example pods, with the hooks that upstream's tests want.
type fixture struct {
	*store
	state *state.Store
}

func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	st := openState(tb)
	return newFixtureOver(tb, New(st), st)
}

func newFixtureOver(tb testing.TB, b *Backend, st *state.Store) *fixture {
	tb.Helper()
	s, err := b.newStore(storeConfig{
		codec:       exampleCodec(tb),
		transformer: storagetesting.NewPrefixTransformer([]byte(sealPrefix), false),
		resource:    schema.GroupResource{Resource: "pods"},
		prefix:      "/pods/",
		newFunc:     func() runtime.Object { return &example.Pod{} },
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.close)
	return &fixture{store: s, state: st}
}

// reporting is the fixture as the registry sees it.
func (f *fixture) reporting() *reportingFixture {
	return &reportingFixture{corruptReporter{Interface: f, resource: f.resource}, f}
}

type reportingFixture struct {
	corruptReporter
	f *fixture
}

func (r *reportingFixture) UpdateTransformer(m storagetesting.TransformerModifier) func() {
	return r.f.UpdateTransformer(m)
}

// UpdateTransformer implements storagetesting.InterfaceWithTransformerOverride.
func (f *fixture) UpdateTransformer(modify storagetesting.TransformerModifier) func() {
	original := f.coder.transformer
	f.coder.transformer = modify(original)
	return func() { f.coder.transformer = original }
}

// UpdatePrefixTransformer implements storagetesting.InterfaceWithPrefixTransformer.
func (f *fixture) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	original := f.coder.transformer.(*storagetesting.PrefixTransformer)
	changed := *original
	f.coder.transformer = modify(&changed)
	return func() { f.coder.transformer = original }
}

// compact drops the history below a resource version. Like etcd's, it makes one revision itself.
func (f *fixture) compact(ctx context.Context, t *testing.T, rv string) {
	t.Helper()
	rev, err := versioner().ParseResourceVersion(rv)
	if err != nil {
		t.Fatal(err)
	}
	f.state.Compact(rev)
	f.increaseRV(ctx, t)
}

// increaseRV writes something that is none of the resource's.
func (f *fixture) increaseRV(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	res, err := f.state.Apply(ctx, state.Write{Key: "increaseRV", Value: []byte("ok"), Expect: state.Any})
	if err != nil {
		t.Fatal(err)
	}
	return int64(res.Revision)
}

// checkStored verifies what an object's stored form must not hold.
func (f *fixture) checkStored(_ context.Context, t *testing.T, key string) {
	t.Helper()
	e, ok := f.state.View().Get(key)
	if !ok {
		t.Fatalf("nothing stored under %s", key)
	}
	obj, err := runtime.Decode(f.coder.codec, e.Value[len(sealPrefix):])
	if err != nil {
		t.Fatal(err)
	}
	if pod := obj.(*example.Pod); pod.ResourceVersion != "" {
		t.Errorf("stored: resourceVersion %q", pod.ResourceVersion)
	}
}

// checkReads verifies that a list decoded no more objects than it had to.
func (f *fixture) checkReads(t *testing.T, _, want uint64) {
	t.Helper()
	if got := f.coder.transformer.(*storagetesting.PrefixTransformer).GetReadsAndReset(); got != want {
		t.Errorf("%d objects were decoded, want %d", got, want)
	}
}

var errSynthetic = errors.New("synthetic error")

// breakableCodec makes the fixture's codec fail on request.
func (f *fixture) breakableCodec() func(bool) {
	c := &breakableCodec{Codec: f.coder.codec}
	f.coder.codec = c
	return c.broken.Store
}

type breakableCodec struct {
	runtime.Codec
	broken atomic.Bool
}

func (c *breakableCodec) Decode(data []byte, gvk *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if c.broken.Load() {
		return nil, nil, errSynthetic
	}
	return c.Codec.Decode(data, gvk, into)
}

// breakableTransformer makes the fixture's transformer fail on request.
func (f *fixture) breakableTransformer() func(bool) {
	b := &breakableTransformer{Transformer: f.coder.transformer}
	f.coder.transformer = b
	return b.broken.Store
}

type breakableTransformer struct {
	value.Transformer
	broken atomic.Bool
}

func (b *breakableTransformer) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	if b.broken.Load() {
		return nil, false, errSynthetic
	}
	return b.Transformer.TransformFromStorage(ctx, data, dataCtx)
}

func pod(name string) *example.Pod {
	return &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
}

func podKey(name string) string { return "/pods/ns/" + name }

func (f *fixture) create(tb testing.TB, name string) *example.Pod {
	tb.Helper()
	out := &example.Pod{}
	if err := f.Create(tb.Context(), podKey(name), pod(name), out, 0); err != nil {
		tb.Fatal(err)
	}
	return out
}

// label sets a label and returns the new object.
func (f *fixture) label(tb testing.TB, name string, n int) *example.Pod {
	tb.Helper()
	out := &example.Pod{}
	err := f.GuaranteedUpdate(tb.Context(), podKey(name), out, false, nil,
		storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
			p := obj.(*example.Pod)
			p.Labels = map[string]string{"n": strconv.Itoa(n)}
			return p, nil
		}), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
