package predecessor

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

// world is a replica on n4, and what is stored in it. Its pods are Pods in JSON.
type world struct {
	*Index
	t     *testing.T
	store *state.Store
}

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := state.Open(t.Context(), state.Config{
			NodeID: "n4", Log: slog.New(slog.DiscardHandler), MinFree: 1, Retain: state.Retention{Age: time.Hour, Events: 20},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(&world{t: t, store: s, Index: New(Config{Node: "n4", Store: s, Pod: fromJSON, Log: slog.New(slog.DiscardHandler)})})
	})
}

func fromJSON(_ state.View, key string, value []byte) (p Pod, ok bool) {
	return p, strings.HasPrefix(key, "/pods/") && json.Unmarshal(value, &p) == nil
}

func (w *world) put(key string, value []byte) {
	w.t.Helper()
	if _, err := w.store.Apply(w.t.Context(), state.Write{Key: key, Value: value, Expect: state.Any}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(key string) {
	w.t.Helper()
	if _, err := w.store.Apply(w.t.Context(), state.Write{Key: key, Delete: true, Expect: state.Any}); err != nil {
		w.t.Fatal(err)
	}
}

// current makes a pod the API's.
func (w *world) current(key string, p Pod) {
	w.t.Helper()
	w.put(key, encoded(p))
}

func encoded(p Pod) []byte {
	b, _ := json.Marshal(p) // never fails
	return b
}

// lose writes what a merge writes, and returns the record's ID. The zero Pod stands for a deletion.
func (w *world) lose(key string, lost, kept Pod, at hlc.Stamp) string {
	w.t.Helper()
	side := func(p Pod) journal.Side {
		if p == (Pod{}) {
			return journal.Side{Deleted: true, Stamp: at}
		}
		return journal.Side{Value: encoded(p), Stamp: at}
	}
	c := journal.Conflict{Key: key, Kept: side(kept), Lost: side(lost)}
	id := journal.ID(key, c.Lost)
	w.put(journal.Prefix+id, c.Encode())
	return id
}

func (w *world) waits(key, uid string, running ...string) string {
	return w.Wait(key, uid, func(uid string) bool { return slices.Contains(running, uid) })
}

const key = "/pods/default/db-0"

func on(uid, node string) Pod { return Pod{UID: uid, Node: node, Single: true} }

func TestWait(t *testing.T) {
	b := on("b", "n4")
	over, twice := on("a", "n1"), on("a", "n1")
	over.Over, twice.Single = true, false
	const foreign = "waits until pod UID a, which it replaced in a merge, has ended on n1; if n1 is off: psctl node fence n1"
	for name, c := range map[string]struct {
		lost, kept Pod
		running    string
		want       string
	}{
		"replaced":                             {on("a", "n1"), b, "", foreign},
		"deleted by the merge":                 {on("a", "n1"), Pod{}, "", foreign},
		"replaced by what was replaced since":  {on("a", "n1"), on("x", "n3"), "", foreign},
		"on this very node, and runs":          {on("a", "n4"), b, "a", "waits until pod UID a, which it replaced in a merge, has ended on n4"},
		"on this very node, and has ended":     {on("a", "n4"), b, "", ""},
		"the pod itself, bound to another":     {on("b", "n1"), b, "", strings.Replace(foreign, "UID a", "UID b", 1)},
		"the pod itself, another status":       {on("b", "n4"), b, "b", ""},
		"the pod itself, then lost by another": {b, on("x", "n3"), "", ""},
		"only its status, replaced later":      {on("a", "n1"), on("a", "n1"), "", ""},
		"never bound":                          {on("a", ""), b, "", ""},
		"ended long ago":                       {over, b, "", ""},
		"may run twice":                        {twice, b, "", ""},
		"a deletion":                           {Pod{}, b, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.current(key, b)
				w.lose("/pods/default/db-1", on("other", "n1"), Pod{}, 1)
				w.lose("/configmaps/default/db-0", on("a", "n1"), b, 1)
				id := w.lose(key, c.lost, c.kept, 2)
				if got := w.waits(key, "b", c.running); got != c.want {
					t.Errorf("it waits: %q, want %q", got, c.want)
				}
				w.put(EndedPrefix+id, nil)
				if got := w.waits(key, "b", c.running); got != "" {
					t.Errorf("after the notice it waits: %q", got)
				}
			})
		})
	}
}

// What this node has been told of its pods may be older than the replica is: a pod that was replaced is
// not started any more, since its node has said that it does not run.
func TestWaitOfWhatIsNotThereAnyMore(t *testing.T) {
	inWorld(t, func(w *world) {
		if w.waits(key, "b") == "" {
			t.Error("a pod that the API does not have may be started")
		}
		w.current(key, on("c", "n4"))
		if w.waits(key, "b") == "" {
			t.Error("a pod that was replaced may be started")
		}
		w.current(key, on("b", "n3"))
		if w.waits(key, "b") == "" {
			t.Error("a pod that was bound to another node may be started")
		}
		w.current(key, on("b", "n4"))
		if got := w.waits(key, "b"); got != "" {
			t.Error(got)
		}
		w.put(key, []byte("not understood"))
		if got := w.waits(key, "b"); got != "" {
			t.Error("what cannot be read is believed: ", got)
		}
	})
}

// A pod may be lost, come back by another merge, and be lost again: the notice of the first time does not
// count for the second.
func TestANoticeIsOfOneLoss(t *testing.T) {
	inWorld(t, func(w *world) {
		w.current(key, on("b", "n4"))
		first := w.lose(key, on("a", "n1"), on("b", "n4"), 1)
		w.put(EndedPrefix+first, nil)
		if got := w.waits(key, "b"); got != "" {
			t.Fatal(got)
		}
		w.lose(key, on("a", "n1"), on("b", "n4"), 5)
		if w.waits(key, "b") == "" {
			t.Error("the notice of the first time counts for the second")
		}
	})
}

func TestTell(t *testing.T) {
	inWorld(t, func(w *world) {
		mine, foreign := w.lose(key, on("a", "n4"), on("b", "n1"), 1), w.lose(key, on("c", "n1"), on("b", "n1"), 1)
		ends := func(id string) bool {
			e, ok := w.store.View().Get(EndedPrefix + id)
			if ok && e.Expires < time.Now().Add(journal.Age-time.Minute).Unix() {
				t.Errorf("the notice expires at %v", e.Expires)
			}
			return ok
		}
		tell := func(running ...string) {
			t.Helper()
			if err := w.Tell(w.t.Context(), func(uid string) bool { return slices.Contains(running, uid) }); err != nil {
				t.Error(err)
			}
		}
		tell("a")
		if ends(mine) || ends(foreign) {
			t.Error("said to have ended while it runs")
		}
		if got := w.Nodes(); !slices.Equal(got, []string{"n1", "n4"}) {
			t.Errorf("nodes with losses: %v", got)
		}
		tell()
		if !ends(mine) || ends(foreign) {
			t.Errorf("this node's has ended: %v, the other's: %v", ends(mine), ends(foreign))
		}
		was := w.store.Revision()
		tell()
		if now := w.store.Revision(); now != was {
			t.Error("it was said again")
		}
		if err := w.End(w.t.Context(), "n1"); err != nil || !ends(foreign) || len(w.Nodes()) > 0 {
			t.Errorf("the leader's word: %v, %v; left: %v", err, ends(foreign), w.Nodes())
		}
	})
}

// Somebody else may have been faster.
func TestBothSay(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.lose(key, on("a", "n4"), on("b", "n1"), 1)
		losses := w.open(func(Loss) bool { return true })
		w.put(EndedPrefix+id, nil)
		if err := w.write(w.t.Context(), losses); err != nil {
			t.Error(err)
		}
	})
}

// The journal's records expire, and it may change faster than anybody asks.
func TestTheIndexFollows(t *testing.T) {
	inWorld(t, func(w *world) {
		w.current(key, on("b", "n4"))
		id := w.lose(key, on("a", "n1"), on("b", "n4"), 1)
		if w.waits(key, "b") == "" {
			t.Fatal("no loss")
		}
		w.remove(journal.Prefix + id)
		if got := w.waits(key, "b"); got != "" {
			t.Errorf("without the record it waits: %q", got)
		}
		for i := range 100 { // more than the history holds
			w.lose(fmt.Sprint("/pods/default/x-", i), on("x", "n1"), Pod{}, 1)
		}
		w.lose(key, on("a", "n2"), on("b", "n4"), 1)
		if got := w.waits(key, "b"); !strings.Contains(got, "n2") {
			t.Errorf("it waits: %q", got)
		}
		if got := w.Nodes(); !slices.Equal(got, []string{"n1", "n2"}) {
			t.Errorf("nodes with losses: %v", got)
		}
	})
}

func TestChanged(t *testing.T) {
	inWorld(t, func(w *world) {
		running := make(chan struct{})
		go func() { w.Run(w.t.Context()); close(running) }()
		synctest.Wait()
		told := func(do func()) bool {
			changed := w.Changed()
			do()
			synctest.Wait()
			select {
			case <-changed:
				return true
			default:
				return false
			}
		}
		var id string
		if !told(func() { id = w.lose(key, on("a", "n1"), on("b", "n4"), 1) }) {
			t.Error("a loss was not told of")
		}
		if told(func() { w.lose("/configmaps/default/a", on("a", "n1"), on("b", "n4"), 1) }) {
			t.Error("told of what is no loss")
		}
		if !told(func() { w.lose(key, on("a", "n2"), on("b", "n4"), 1); w.Nodes() }) {
			t.Error("a loss was not told of, because somebody had asked meanwhile")
		}
		if !told(func() { w.put(EndedPrefix+id, nil) }) {
			t.Error("a notice was not told of")
		}
		if told(func() { w.put("/pods/default/db-9", nil) }) {
			t.Error("told of what is neither")
		}
		w.store.Close()
		<-running
		if why := w.waits(key, "b"); why == "" {
			t.Error("without a store it may be started")
		}
	})
}
