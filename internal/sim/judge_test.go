package sim

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// judgeWatches: every watcher saw every event of its lineage once, in order.
func (h *history) judgeWatches(t *testing.T) {
	t.Helper()
	all := map[string]map[uint64]bool{} // revisions by lineage
	for _, x := range h.streams {
		if all[x.lineage] == nil {
			all[x.lineage] = map[uint64]bool{}
		}
		for _, r := range x.revisions {
			all[x.lineage][r] = true
		}
	}
	for _, x := range h.streams {
		if !slices.IsSorted(x.revisions) || len(slices.Compact(slices.Clone(x.revisions))) != len(x.revisions) {
			t.Errorf("%s: a watch saw %v", x.node, x.revisions)
		}
		if x.lineage == "" {
			continue
		}
		saw := map[uint64]bool{}
		for _, r := range x.revisions {
			saw[r] = true
		}
		for r := range all[x.lineage] {
			if r > x.after && r <= x.upTo && !saw[r] {
				t.Errorf("%s: a watch of lineage %s after %d up to %d missed revision %d: %+v", x.node, x.lineage, x.after, x.upTo, r, h.events[r])
			}
		}
	}
}

// register is one key, for porcupine. Its state is the value; nothing is "".
type input struct {
	op
	foreign bool // of another lineage: it may come by a merge, whatever is here
	lenient bool // revisions may have changed with a lineage: a swap may be refused for that alone, if they have
}

func step(state, in, _ any) (bool, any) {
	value, o := state.(string), in.(input)
	switch {
	case o.kind == opRead:
		return o.got == value, value
	case o.kind == opDelete && (o.foreign || o.outcome == unknown):
		return true, ""
	case o.kind == opDelete && o.outcome == conflict:
		return value == "", value
	case o.kind == opDelete:
		return value != "", ""
	case o.outcome == conflict:
		return o.got == value && (value != o.want || o.lenient && o.there != o.expect), value
	case o.kind == opPut || o.foreign:
		return true, o.value
	case o.outcome == unknown && value != o.want:
		return true, value
	}
	return value == o.want, o.value
}

// judgeKeys: as long as a lineage lasts, every key is linearizable. What clients did in another
// lineage may come by a merge, at any time after; what has no known outcome may happen at any time.
func (h *history) judgeKeys(t *testing.T) {
	t.Helper()
	byKey := map[string][]op{}
	for _, o := range h.ops {
		byKey[o.key] = append(byKey[o.key], o)
	}
	for _, e := range h.final {
		if byKey[e.Key] == nil { // no client's
			continue
		}
		byKey[e.Key] = append(byKey[e.Key], h.lastRead(e.Key, string(e.Value)))
	}
	// Acknowledged where the node was changing its lineage: there was another one, though nobody may have met it.
	several := h.lineages[""] || len(h.lineages) > 1
	delete(h.lineages, "")
	model := porcupine.Model{Init: func() any { return "" }, Step: step, Equal: func(a, b any) bool { return a == b }}
	checked := 0
	for key, ops := range byKey {
		for lineage := range h.lineages {
			story := h.storyOf(lineage, ops, several)
			checked += len(story)
			switch porcupine.CheckOperationsTimeout(model, story, 5*time.Second) {
			case porcupine.Illegal:
				t.Errorf("key %s is not linearizable in lineage %s:", key, lineage)
				slices.SortFunc(story, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
				for _, o := range story {
					t.Logf("  foreign %-5v %v", o.Input.(input).foreign, o.Input.(input).op)
				}
			case porcupine.Unknown:
				t.Logf("key %s in lineage %s: %d operations, too many to judge", key, lineage, len(story))
			case porcupine.Ok:
			}
		}
	}
	t.Logf("%d operations of clients in %d lineages, %d events, %d watches, %d conflicts in the journal; %d operations judged",
		len(h.ops), len(h.lineages), len(h.events), len(h.streams), len(h.journal), checked)
}

// lastRead is what stands in the end.
func (h *history) lastRead(key, value string) op {
	h.clock++
	return op{kind: opRead, key: key, got: value, outcome: done, lineage: h.last, call: h.clock, ret: h.clock, node: "all"}
}

// storyOf is what one lineage has to explain of the operations on a key.
func (h *history) storyOf(lineage string, ops []op, several bool) []porcupine.Operation {
	var out []porcupine.Operation
	seen, deletions := map[string]bool{}, false
	for _, o := range ops {
		if o.lineage == lineage {
			seen[o.got], seen[o.want] = true, true
			deletions = deletions || o.kind == opDelete
		}
	}
	for i, o := range ops {
		in := input{op: o, foreign: o.lineage != lineage, lenient: several}
		ret := o.ret
		switch certain := o.outcome == done || o.outcome == conflict; {
		case o.outcome == nothing, o.kind == opRead && o.outcome != done:
			continue
		case in.foreign && (o.kind == opRead || o.outcome == conflict):
			continue
		case in.foreign || !certain:
			if !seen[o.value] && !deletions { // it may as well never have happened
				continue
			}
			ret = math.MaxInt64
		}
		out = append(out, porcupine.Operation{ClientId: i, Input: in, Call: o.call, Return: ret})
	}
	return out
}

// judgeEnd: every acknowledged write stands, or a newer one stands in its place, or the journal has it.
func (h *history) judgeEnd(t *testing.T) {
	t.Helper()
	if h.swept || h.last == "" {
		return
	}
	type kv struct{ key, value string }
	lost, writes := map[kv]bool{}, map[kv]op{}
	for _, c := range h.journal {
		lost[kv{c.Key, string(c.Lost.Value)}] = true
	}
	deletes := map[string][]op{}
	for _, o := range h.ops {
		if o.kind == opPut || o.kind == opSwap {
			writes[kv{o.key, o.value}] = o
		} else if o.kind == opDelete && (o.outcome == done || o.outcome == unknown) {
			deletes[o.key] = append(deletes[o.key], o)
		}
	}
	final := map[string]int{}
	for i, e := range h.final {
		final[e.Key] = i + 1
	}
	for at, o := range writes {
		if o.outcome != done || lost[at] {
			continue
		}
		i, ok := final[o.key]
		switch {
		case ok && string(h.final[i-1].Value) == o.value:
			for _, d := range deletes[o.key] {
				if d.outcome == done && d.lineage == o.lineage && o.lineage != "" && o.ret < d.call {
					t.Errorf("%s was deleted and is back:\n  %v\n  %v", o.key, o, d)
				}
			}
		case !ok && len(deletes[o.key]) == 0:
			t.Errorf("%s is gone, nobody deleted it:\n  %v", o.key, o)
		case ok && h.final[i-1].Stamp < o.stamp:
			t.Errorf("%s is %q of %v, older than:\n  %v", o.key, h.final[i-1].Value, h.final[i-1].Stamp, o)
		case ok:
			h.judgeOverwrite(t, o, func(key, value string) (op, bool) { w, ok := writes[kv{key, value}]; return w, ok })
		}
	}
}

// judgeOverwrite: what took the place of a write knew of it, or the journal would have it.
func (h *history) judgeOverwrite(t *testing.T, o op, find func(key, value string) (op, bool)) {
	t.Helper()
	var by *op
	for _, x := range h.streams {
		for value, prev := range x.prev[o.key] {
			if prev != o.value {
				continue
			}
			w, ok := find(o.key, value)
			if !ok || w.lineage == "" || w.outcome != done || x.lineage == "" || w.lineage == x.lineage {
				return // it was overwritten by a client, or nobody can tell
			}
			by = &w
		}
	}
	if by != nil && h.ignorant(*by, o) {
		t.Errorf("a merge overwrote %s, and the journal does not have it:\n  %v\n  by %v", o.key, o, *by)
	}
}

// ignorant reports whether a write was made where another one had never been.
func (h *history) ignorant(w, o op) bool {
	watched := false
	for _, x := range h.streams {
		if x.lineage != w.lineage {
			continue
		}
		for value, prev := range x.prev[o.key] {
			if prev == o.value {
				return false
			}
			watched = watched || value == w.value
		}
	}
	return watched
}
