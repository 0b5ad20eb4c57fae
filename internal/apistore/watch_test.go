package apistore

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
	"pgregory.net/rapid"
)

// receive returns the next event of a watch.
func receive(tb rapid.TB, w watch.Interface) watch.Event {
	tb.Helper()
	select {
	case e, ok := <-w.ResultChan():
		if !ok {
			tb.Fatal("the watch has ended")
		}
		return e
	case <-time.After(10 * time.Second):
		tb.Fatal("no event")
	}
	panic("unreachable")
}

func watchPods(tb testing.TB, f *fixture, opts storage.ListOptions) watch.Interface {
	tb.Helper()
	opts.Recursive = true
	if opts.Predicate.Label == nil {
		opts.Predicate = storage.Everything
	}
	w, err := f.Watch(tb.Context(), "/pods/", opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.Stop)
	return w
}

// A client that resumes from a revision of another history must list again; it must not wait for
// that number to come up.
func TestWatchFromAnotherHistory(t *testing.T) {
	f := newFixture(t)
	w := watchPods(t, f, storage.ListOptions{ResourceVersion: "1000"})
	e := receive(t, w)
	status, ok := e.Object.(*metav1.Status)
	if e.Type != watch.Error || !ok || status.Code != http.StatusGone {
		t.Errorf("got %+v", e)
	}
	if _, open := <-w.ResultChan(); open {
		t.Error("the watch goes on after an error")
	}
}

func TestWatchOnALateReplica(t *testing.T) {
	leader, late, _, _, added := newFollower(t)
	w := watchPods(t, late, storage.ListOptions{ResourceVersion: added.ResourceVersion})
	created := leader.create(t, "newer")
	if diff := cmp.Diff(watch.Event{Type: watch.Added, Object: created}, receive(t, w)); diff != "" {
		t.Error(diff)
	}
}

func TestRequestWatchProgress(t *testing.T) {
	f := newFixture(t)
	f.bookmarkEvery = time.Hour
	created := f.create(t, "a")
	asked := watchPods(t, f, storage.ListOptions{ResourceVersion: created.ResourceVersion, ProgressNotify: true})
	silent := watchPods(t, f, storage.ListOptions{ResourceVersion: created.ResourceVersion})
	rev := f.increaseRV(t.Context(), t)
	for range 2 { // also when there is nothing new to say
		if err := f.RequestWatchProgress(t.Context()); err != nil {
			t.Fatal(err)
		}
		e := receive(t, asked)
		p, ok := e.Object.(*example.Pod)
		if e.Type != watch.Bookmark || !ok || p.ResourceVersion != strconv.FormatInt(rev, 10) {
			t.Fatalf("got %+v, want a bookmark at %d", e, rev)
		}
	}
	f.create(t, "b")
	if e := receive(t, silent); e.Type != watch.Added {
		t.Errorf("a watch that did not ask for progress got %+v", e)
	}
}

// A quiet watch hears of progress once, and not again while nothing happens anywhere.
func TestBookmarksOnlyWithNews(t *testing.T) {
	f := newFixture(t)
	f.bookmarkEvery = 5 * time.Millisecond
	pred := storage.Everything
	pred.AllowWatchBookmarks = true
	created := f.create(t, "a")
	w := watchPods(t, f, storage.ListOptions{ResourceVersion: created.ResourceVersion, Predicate: pred})
	rev := f.increaseRV(t.Context(), t)
	e := receive(t, w)
	if p, ok := e.Object.(*example.Pod); !ok || e.Type != watch.Bookmark || p.ResourceVersion != strconv.FormatInt(rev, 10) {
		t.Fatalf("got %+v", e)
	}
	select {
	case e := <-w.ResultChan():
		t.Errorf("nothing happened, but %+v", e)
	case <-time.After(100 * time.Millisecond):
	}
}

// A watch of one object does not hear of objects whose names begin alike.
func TestWatchOneKey(t *testing.T) {
	f := newFixture(t)
	w, err := f.Watch(t.Context(), podKey("a"), storage.ListOptions{ResourceVersion: "0", Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	f.create(t, "ab")
	created := f.create(t, "a")
	if diff := cmp.Diff(watch.Event{Type: watch.Added, Object: created}, receive(t, w)); diff != "" {
		t.Error(diff)
	}
}

func TestCloseEndsWatches(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a")
	w := watchPods(t, f, storage.ListOptions{ResourceVersion: "0"})
	receive(t, w)
	blocked := watchPods(t, f, storage.ListOptions{ResourceVersion: "0"})
	for i := range 2 * resultBuffer { // nobody reads this watch: it must end all the same
		f.create(t, fmt.Sprint("filler-", i))
	}
	f.close()
	for range w.ResultChan() {
	}
	for range blocked.ResultChan() {
	}
	if _, err := f.Watch(t.Context(), "/pods/", storage.ListOptions{Recursive: true, Predicate: storage.Everything}); err == nil {
		t.Error("a closed storage accepts watches")
	}
}

func selected(value string) storage.SelectionPredicate {
	return storage.SelectionPredicate{
		Label: labels.SelectorFromSet(labels.Set{"in": value}),
		Field: fields.Everything(),
		GetAttrs: func(obj runtime.Object) (labels.Set, fields.Set, error) {
			return obj.(*example.Pod).Labels, nil, nil
		},
	}
}

// Whatever happens, and wherever a watch begins, folding its events into the list it began with
// gives the list at the end: objects enter and leave the selection by ADDED and DELETED.
func TestWatchFollowsSelection(t *testing.T) {
	f := newFixture(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		prefix := fmt.Sprintf("/pods/round%d/", round)
		script := rapid.SliceOfN(rapid.Custom(drawStep), 1, 30).Draw(rt, "script")
		from := rapid.IntRange(0, len(script)).Draw(rt, "watch begins after")
		initial := rapid.Bool().Draw(rt, "with initial events")
		for _, s := range script[:from] {
			s.run(t, f, prefix)
		}
		begin := listSelected(t, f, prefix)
		opts := storage.ListOptions{Recursive: true, Predicate: selected("yes"), ResourceVersion: begin.ResourceVersion}
		seen := map[string]string{}
		if initial {
			opts.ResourceVersion = ""
		} else {
			for _, p := range begin.Items {
				seen[p.Name] = p.ResourceVersion
			}
		}
		w, err := f.Watch(t.Context(), prefix, opts)
		if err != nil {
			rt.Fatal(err)
		}
		defer w.Stop()
		for _, s := range script[from:] {
			s.run(t, f, prefix)
		}
		step{name: "end", op: "yes"}.run(t, f, prefix)
		fold(rt, w, seen)
		want := map[string]string{}
		for _, p := range listSelected(t, f, prefix).Items {
			want[p.Name] = p.ResourceVersion
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			rt.Fatalf("list (-) and watch (+) differ:\n%s", diff)
		}
	})
}

// fold applies events to seen (name to resource version) until the pod "end" appears.
func fold(rt *rapid.T, w watch.Interface, seen map[string]string) {
	for seen["end"] == "" {
		e := receive(rt, w)
		p, ok := e.Object.(*example.Pod)
		if !ok {
			rt.Fatalf("got %+v", e)
		}
		if _, known := seen[p.Name]; known != (e.Type != watch.Added) {
			rt.Fatalf("%s of %s, known before: %v", e.Type, p.Name, known)
		}
		if e.Type == watch.Deleted {
			delete(seen, p.Name)
		} else {
			seen[p.Name] = p.ResourceVersion
		}
	}
}

// step is one write: op is the value of the label "in", or "delete".
type step struct{ name, op string }

func drawStep(t *rapid.T) step {
	return step{
		name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
		op:   rapid.SampledFrom([]string{"yes", "no", "delete"}).Draw(t, "op"),
	}
}

func (s step) run(t *testing.T, f *fixture, prefix string) {
	t.Helper()
	var err error
	if s.op == "delete" {
		err = f.Delete(t.Context(), prefix+s.name, &example.Pod{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{})
		if storage.IsNotFound(err) {
			err = nil
		}
	} else {
		err = f.GuaranteedUpdate(t.Context(), prefix+s.name, &example.Pod{}, true, nil,
			storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
				p := obj.(*example.Pod)
				p.Name, p.Labels = s.name, map[string]string{"in": s.op}
				p.Spec.NodeName += "x" // never a write without a change
				return p, nil
			}), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func listSelected(t *testing.T, f *fixture, prefix string) *example.PodList {
	t.Helper()
	out := &example.PodList{}
	if err := f.GetList(t.Context(), prefix, storage.ListOptions{Recursive: true, Predicate: selected("yes")}, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The pages of a list are one snapshot, whatever is written between them.
func TestPagesAreOneSnapshot(t *testing.T) {
	f := newFixture(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		prefix := fmt.Sprintf("/pods/page%d/", round)
		for _, s := range rapid.SliceOfN(rapid.Custom(drawStep), 1, 10).Draw(rt, "before") {
			s.run(t, f, prefix)
		}
		want := names(listPage(t, f, prefix, storage.Everything))
		pred := storage.Everything
		pred.Limit = rapid.Int64Range(1, 4).Draw(rt, "limit")
		var got []string
		rv := ""
		for {
			page := listPage(t, f, prefix, pred)
			got = append(got, names(page)...)
			if rv == "" {
				rv = page.ResourceVersion
			}
			if page.ResourceVersion != rv {
				rt.Fatalf("page at %s, first page at %s", page.ResourceVersion, rv)
			}
			if pred.Continue = page.Continue; page.Continue == "" {
				break
			}
			if left := int64(len(want) - len(got)); page.RemainingItemCount == nil || *page.RemainingItemCount != left {
				rt.Fatalf("remaining %v, want %d", page.RemainingItemCount, left)
			}
			rapid.Custom(drawStep).Draw(rt, "between").run(t, f, prefix)
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("pages give %v, want %v", got, want)
		}
	})
}

func listPage(t *testing.T, f *fixture, prefix string, pred storage.SelectionPredicate) *example.PodList {
	t.Helper()
	out := &example.PodList{}
	if err := f.GetList(t.Context(), prefix, storage.ListOptions{Recursive: true, Predicate: pred}, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func names(l *example.PodList) []string {
	out := make([]string, 0, len(l.Items))
	for _, p := range l.Items {
		out = append(out, p.Name+"@"+p.ResourceVersion)
	}
	return out
}

// A watch whose context has a deadline says how far it got shortly before, so that its client
// resumes from there.
func TestLastBookmark(t *testing.T) {
	f := newFixture(t)
	pred := storage.Everything
	pred.AllowWatchBookmarks = true
	ctx, cancel := context.WithTimeout(t.Context(), lastBookmark+50*time.Millisecond)
	defer cancel()
	w, err := f.Watch(ctx, "/pods/", storage.ListOptions{ResourceVersion: "1", Recursive: true, Predicate: pred})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	f.increaseRV(t.Context(), t)
	if e := receive(t, w); e.Type != watch.Bookmark {
		t.Errorf("got %+v", e)
	}
}
