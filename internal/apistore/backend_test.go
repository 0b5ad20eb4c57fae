package apistore

import (
	"bytes"
	"context"
	"crypto/aes"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// The storage that the registry gets is ours, with the config's codec and transformer.
func TestRESTOptions(t *testing.T) {
	st := openState(t)
	gr := schema.GroupResource{Resource: "pods"}
	inner := generic.RESTOptions{
		ResourcePrefix: "/pods",
		StorageConfig: &storagebackend.ConfigForResource{
			Config:        storagebackend.Config{Codec: exampleCodec(t), Transformer: encryption(t, "1")},
			GroupResource: gr,
		},
	}
	opts, err := New(st).RESTOptions(inner).GetRESTOptions(gr, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, destroy, err := opts.Decorator(opts.StorageConfig, opts.ResourcePrefix, nil,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} }, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer destroy()
	if err := s.Create(t.Context(), podKey("a"), pod("a"), nil, 0); err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(t.Context(), "/pods", storage.ListOptions{Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, w)

	// A value moved to another key does not decrypt, and the registry is told so.
	entry, _ := st.View().Get(podKey("a"))
	if _, err := st.Apply(t.Context(), state.Write{Key: podKey("b"), Value: entry.Value}); err != nil {
		t.Fatal(err)
	}
	if err := s.Get(t.Context(), podKey("b"), storage.GetOptions{}, &example.Pod{}); !storage.IsCorruptObject(err) {
		t.Errorf("moved value: %v", err)
	}
	destroy()
	destroy()
	for range w.ResultChan() {
	}
}

func TestBadResourcePrefix(t *testing.T) {
	for _, prefix := range []string{"", "/", "pods"} {
		if _, err := (&Backend{}).newStore(storeConfig{prefix: prefix}); err == nil {
			t.Errorf("prefix %q is accepted", prefix)
		}
	}
}

// encryption is upstream's AES-GCM, writing with the first key and reading with all of them.
func encryption(t *testing.T, keys ...string) value.Transformer {
	t.Helper()
	var all []value.PrefixTransformer
	for _, key := range keys {
		block, err := aes.NewCipher([]byte(strings.Repeat(key, 32)))
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := aestransformer.NewGCMTransformer(block)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, value.PrefixTransformer{Prefix: []byte("enc:" + key + ":"), Transformer: gcm})
	}
	return value.NewPrefixTransformers(nil, all...)
}

func TestKeyRotation(t *testing.T) {
	f := newFixture(t)
	f.coder.transformer = encryption(t, "1")
	created := f.create(t, "secret-name")
	stored := func() []byte {
		e, _ := f.state.View().Get(podKey("secret-name"))
		return e.Value
	}
	if v := stored(); !bytes.HasPrefix(v, []byte("enc:1:")) || bytes.Contains(v, []byte("secret-name")) {
		t.Errorf("stored in clear: %q", v)
	}
	f.coder.transformer = encryption(t, "2", "1")
	touch := func() *example.Pod {
		out := &example.Pod{}
		err := f.GuaranteedUpdate(t.Context(), podKey("secret-name"), out, false, nil,
			storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) { return obj, nil }), nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	rewritten := touch()
	if rewritten.ResourceVersion == created.ResourceVersion || !bytes.HasPrefix(stored(), []byte("enc:2:")) {
		t.Errorf("not rewritten with the new key: %q", stored())
	}
	if again := touch(); again.ResourceVersion != rewritten.ResourceVersion {
		t.Error("written without a change")
	}
	f.coder.transformer = encryption(t, "2")
	if err := f.Get(t.Context(), podKey("secret-name"), storage.GetOptions{}, &example.Pod{}); err != nil {
		t.Errorf("the old key is still needed: %v", err)
	}
}

// Objects are decoded into the list's spare capacity; one that is not kept must leave no trace in
// the next, or codecs that merge into their target would mix the two.
func TestDroppedItemLeavesNoTrace(t *testing.T) {
	list := &example.PodList{}
	items, err := newItems(list)
	if err != nil {
		t.Fatal(err)
	}
	keep := func(name string) {
		p := items.next().(*example.Pod)
		if p.Name != "" || p.Labels != nil {
			t.Errorf("decoding %s begins with %s %v", name, p.Name, p.Labels)
		}
		p.Name = name
		items.keep(p)
	}
	keep("a")
	dropped := items.next().(*example.Pod)
	dropped.Name, dropped.Labels = "dropped", map[string]string{"x": "y"}
	items.drop()
	items.grow(10)
	keep("b")
	items.next()
	items.keep(&example.Pod{Spec: example.PodSpec{NodeName: "elsewhere"}}) // a codec that ignores its target
	if len(list.Items) != 3 || list.Items[0].Name != "a" || list.Items[1].Name != "b" || list.Items[2].Spec.NodeName != "elsewhere" {
		t.Errorf("items: %+v", list.Items)
	}
}

func TestPrefixEnd(t *testing.T) {
	tests := map[string]string{"/pods/": "/pods0", "a": "b", "a\xff": "b", "\xff\xff": "", "": ""}
	for prefix, want := range tests {
		if got := prefixEnd(prefix); got != want {
			t.Errorf("prefixEnd(%q) = %q, want %q", prefix, got, want)
		}
	}
}

func TestSizeEstimationIsEnabledOnce(t *testing.T) {
	f := newFixture(t)
	keys := func(context.Context) ([]string, error) { return nil, nil }
	if err := f.EnableResourceSizeEstimation(nil); err == nil {
		t.Error("a nil function is accepted")
	}
	if err := f.EnableResourceSizeEstimation(keys); err != nil {
		t.Error(err)
	}
	if err := f.EnableResourceSizeEstimation(keys); err == nil {
		t.Error("enabled twice")
	}
}
