package apistore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/warning"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// follower is a replica whose memory stands still until a barrier.
type follower struct {
	*state.Store
	local    atomic.Pointer[state.View]
	barriers atomic.Int32
}

func (r *follower) View() state.View { return *r.local.Load() }

func (r *follower) Barrier(ctx context.Context) error {
	r.barriers.Add(1)
	err := r.Store.Barrier(ctx)
	view := r.Store.View()
	r.local.Store(&view)
	return err
}

func (r *follower) ViewAt(rev uint64) (state.View, error) {
	if rev > r.View().Revision() {
		return state.View{}, state.ErrFuture
	}
	return r.Store.ViewAt(rev)
}

func (r *follower) WatchPrefix(prefix string, after uint64) (*state.Watch, error) {
	if after > r.View().Revision() {
		return nil, state.ErrFuture
	}
	return r.Store.WatchPrefix(prefix, after)
}

// newFollower returns a leader, and a follower that knows of the leader's pod "known" (label n=1)
// but not of what happened since: "known" got n=2, and "new" was created.
func newFollower(t *testing.T) (leader, late *fixture, r *follower, known, added *example.Pod) {
	t.Helper()
	leader = newFixture(t)
	leader.create(t, "known")
	leader.label(t, "known", 1)
	r = &follower{Store: leader.state}
	view := leader.state.View()
	r.local.Store(&view)
	known = leader.label(t, "known", 2)
	added = leader.create(t, "new")
	late = newFixtureOver(t, &Backend{replica: r, bookmarkEvery: bookmarkEvery}, leader.state)
	return leader, late, r, known, added
}

func TestReadsOnALateReplica(t *testing.T) {
	_, _, _, known, added := newFollower(t)
	tests := []struct {
		name, rv     string
		wantN        string // label of "known"
		wantBarriers int32
		wantTooLarge bool
	}{
		{name: "newest", rv: "", wantN: "2", wantBarriers: 1},
		{name: "local", rv: "0", wantN: "1"},
		{name: "at least the past", rv: "1", wantN: "1"},
		{name: "at least what only others have", rv: known.ResourceVersion, wantN: "2", wantBarriers: 1},
		{name: "at least the future", rv: next(t, added.ResourceVersion), wantTooLarge: true, wantBarriers: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, late, r, _, _ := newFollower(t)
			reads := map[string]func() (string, error){
				"get": func() (string, error) {
					out := &example.Pod{}
					err := late.Get(t.Context(), podKey("known"), storage.GetOptions{ResourceVersion: tt.rv}, out)
					return out.Labels["n"], err
				},
				"list": func() (string, error) {
					out := &example.PodList{}
					err := late.GetList(t.Context(), "/pods/", storage.ListOptions{
						ResourceVersion: tt.rv, Recursive: true, Predicate: storage.Everything,
					}, out)
					if err != nil {
						return "", err
					}
					return out.Items[0].Labels["n"], nil
				},
			}
			for name, read := range reads {
				stale := r.View()
				before := r.barriers.Load()
				n, err := read()
				if got := storage.IsTooLargeResourceVersion(err); got != tt.wantTooLarge || err != nil && !got {
					t.Errorf("%s: error %v", name, err)
				}
				if n != tt.wantN {
					t.Errorf("%s: n=%q, want %q", name, n, tt.wantN)
				}
				if got := r.barriers.Load() - before; got != tt.wantBarriers {
					t.Errorf("%s: %d barriers, want %d", name, got, tt.wantBarriers)
				}
				r.local.Store(&stale)
			}
		})
	}
}

func next(t *testing.T, rv string) string {
	t.Helper()
	n, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(n+1, 10)
}

func TestExactListOnALateReplica(t *testing.T) {
	_, late, _, known, _ := newFollower(t)
	out := &example.PodList{}
	err := late.GetList(t.Context(), "/pods/", storage.ListOptions{
		ResourceVersion: known.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact,
		Recursive: true, Predicate: storage.Everything,
	}, out)
	if err != nil || len(out.Items) != 1 || out.Items[0].Labels["n"] != "2" || out.ResourceVersion != known.ResourceVersion {
		t.Errorf("list at %s: %v %+v", known.ResourceVersion, err, out)
	}
}

func TestWritesOnALateReplica(t *testing.T) {
	errRefused := errors.New("refused")
	tests := []struct {
		name         string
		key          string
		update       func(*example.Pod) error
		wantN        string
		wantErr      error
		wantBarriers int32
	}{
		{
			name: "conflict, then the newest", key: "known",
			update: func(p *example.Pod) error { p.Labels["n"] += "x"; return nil }, wantN: "2x",
		},
		{
			name: "created elsewhere", key: "new",
			update: func(p *example.Pod) error { p.Labels = map[string]string{"n": "7"}; return nil }, wantN: "7", wantBarriers: 1,
		},
		{
			name: "no change to what stands here, but to what stands", key: "known",
			update: func(p *example.Pod) error { p.Labels["n"] = "1"; return nil }, wantN: "1", wantBarriers: 1,
		},
		{
			name: "refused for old state only", key: "known",
			update: func(p *example.Pod) error {
				if p.Labels["n"] == "1" {
					return errRefused
				}
				p.Labels["n"] = "3"
				return nil
			},
			wantN: "3", wantBarriers: 1,
		},
		{
			name: "refused", key: "known", update: func(*example.Pod) error { return errRefused },
			wantErr: errRefused, wantN: "2", wantBarriers: 1,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leader, late, r, _, _ := newFollower(t)
			err := late.GuaranteedUpdate(t.Context(), podKey(tt.key), &example.Pod{}, false, nil,
				storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
					return obj, tt.update(obj.(*example.Pod))
				}), nil)
			if !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v, want %v", err, tt.wantErr)
			}
			if got := r.barriers.Load(); got != tt.wantBarriers {
				t.Errorf("%d barriers, want %d", got, tt.wantBarriers)
			}
			out := &example.Pod{}
			if err := leader.Get(t.Context(), podKey(tt.key), storage.GetOptions{}, out); err != nil {
				t.Fatal(err)
			}
			if out.Labels["n"] != tt.wantN {
				t.Errorf("n=%q, want %q", out.Labels["n"], tt.wantN)
			}
		})
	}
}

func TestDeleteOnALateReplica(t *testing.T) {
	_, late, _, known, added := newFollower(t)
	pre := &storage.Preconditions{ResourceVersion: &known.ResourceVersion}
	out := &example.Pod{}
	if err := late.Delete(t.Context(), podKey("known"), out, pre, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if out.Labels["n"] != "2" || out.ResourceVersion != next(t, added.ResourceVersion) {
		t.Errorf("deleted n=%q at %s", out.Labels["n"], out.ResourceVersion)
	}
	err := late.Delete(t.Context(), podKey("known"), out, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{})
	if !storage.IsNotFound(err) {
		t.Errorf("second deletion: %v", err)
	}
}

// broken is a replica that fails in a chosen way.
type broken struct {
	*state.Store
	apply, barrier error
}

func (b *broken) Apply(ctx context.Context, w state.Write) (state.Result, error) {
	if b.apply != nil {
		return state.Result{}, fmt.Errorf("write %s: %w", w.Key, b.apply)
	}
	return b.Store.Apply(ctx, w)
}

func (b *broken) Barrier(ctx context.Context) error {
	if b.barrier != nil {
		return b.barrier
	}
	return b.Store.Barrier(ctx)
}

type warningList []string

func (w *warningList) AddWarning(_, text string) { *w = append(*w, text) }

func TestErrorsForUsers(t *testing.T) {
	tests := []struct {
		name      string
		broken    broken
		code      int32
		reason    metav1.StatusReason
		readCode  int32 // 0: code
		readFails bool
		readWarns bool
	}{
		{name: "disk full", broken: broken{apply: state.ErrNoSpace}, code: http.StatusInsufficientStorage, reason: ReasonInsufficientStorage},
		{
			name: "no leader", broken: broken{apply: state.ErrNoLeader, barrier: state.ErrNoLeader}, readWarns: true,
			code: http.StatusServiceUnavailable, reason: metav1.StatusReasonServiceUnavailable,
		},
		{
			name: "deadline", broken: broken{apply: context.DeadlineExceeded, barrier: context.DeadlineExceeded}, readFails: true,
			code: http.StatusGatewayTimeout, reason: metav1.StatusReasonTimeout, readCode: http.StatusServiceUnavailable,
		},
		{
			name: "closing", broken: broken{apply: state.ErrClosed, barrier: state.ErrClosed}, readFails: true,
			code: http.StatusServiceUnavailable, reason: metav1.StatusReasonServiceUnavailable,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole := newFixture(t)
			whole.create(t, "there")
			tt.broken.Store = whole.state
			f := newFixtureOver(t, &Backend{replica: &tt.broken, bookmarkEvery: bookmarkEvery}, whole.state)
			check := func(what string, err error) *metav1.Status {
				t.Helper()
				var status apierrors.APIStatus
				if !errors.As(err, &status) {
					t.Fatalf("%s: %v", what, err)
				}
				s := status.Status()
				if s.Code != tt.code || s.Reason != tt.reason || s.Message == "" {
					t.Errorf("%s: %d %s %q", what, s.Code, s.Reason, s.Message)
				}
				return &s
			}
			out := &example.Pod{}
			s := check("create", f.Create(t.Context(), podKey("x"), pod("x"), nil, 0))
			if s.Details != nil && s.Details.RetryAfterSeconds != 0 {
				t.Error("clients would repeat a write that may have happened")
			}
			check("update", f.GuaranteedUpdate(t.Context(), podKey("there"), out, false, nil,
				storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
					obj.(*example.Pod).Labels = map[string]string{"a": "b"}
					return obj, nil
				}), nil))
			check("delete", f.Delete(t.Context(), podKey("there"), out, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}))
			if err := f.Get(t.Context(), podKey("there"), storage.GetOptions{ResourceVersion: "0"}, out); err != nil || out.Name != "there" {
				t.Errorf("local read: %v", err)
			}
			var warnings warningList
			err := f.Get(warning.WithWarningRecorder(t.Context(), &warnings), podKey("there"), storage.GetOptions{}, out)
			if !tt.readFails && (err != nil || out.Name != "there") {
				t.Errorf("read: %v", err)
			}
			if got := slices.Equal(warnings, warningList{staleWarning}); got != tt.readWarns {
				t.Errorf("warnings: %v", warnings)
			}
			if tt.readCode != 0 {
				tt.code, tt.reason = tt.readCode, metav1.StatusReasonServiceUnavailable
			}
			if tt.readFails && check("read", err).Details.RetryAfterSeconds == 0 {
				t.Error("clients would not repeat a read")
			}
		})
	}
}
