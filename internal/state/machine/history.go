package machine

import "time"

// history is the window of recent events: what watches read and old views are made from. Values
// that were replaced live on only here, so its bounds are the price of the past in memory.
//
// Invariant: events[i].Revision == base+1+i; one event per revision, no gaps.
type history struct {
	base   uint64 // the newest revision whose event is gone
	events []Event
	epochs []epoch
	keep   Retention
}

// epoch says when the events from a revision on began to arrive. One per second at most: the
// window needs no better clock.
type epoch struct {
	first uint64
	at    time.Time
}

func (h *history) last() uint64 { return h.base + uint64(len(h.events)) }

func (h *history) reset(rev uint64) {
	h.base, h.events, h.epochs = rev, nil, nil
}

func (h *history) append(ev Event, now time.Time) {
	if n := len(h.epochs); n == 0 || now.Sub(h.epochs[n-1].at) >= time.Second {
		h.epochs = append(h.epochs, epoch{first: ev.Revision, at: now})
	}
	h.events = append(h.events, ev)
	// Cut in steps of an eighth, so that the cost per event stays constant.
	if n := len(h.events); n > h.keep.Events+h.keep.Events/8 {
		h.drop(h.last() - uint64(h.keep.Events))
	}
}

// expire drops what is older than the retained age, and returns when to look again; zero when the
// window is empty.
func (h *history) expire(now time.Time) time.Time {
	limit := now.Add(-h.keep.Age)
	gone := 0
	for gone < len(h.epochs) && !h.epochs[gone].at.After(limit) {
		gone++
	}
	// An epoch lasts until the next begins, so the last one may hold younger events: it goes one
	// second late.
	if gone > 0 && !h.epochs[gone-1].at.Add(time.Second).Before(limit) {
		gone--
	}
	switch {
	case gone == 0:
	case gone == len(h.epochs):
		h.reset(h.last())
	default:
		h.drop(h.epochs[gone].first - 1)
	}
	if len(h.epochs) == 0 {
		return time.Time{}
	}
	return h.epochs[0].at.Add(h.keep.Age + 2*time.Second)
}

// drop forgets every event up to and including rev.
func (h *history) drop(rev uint64) {
	if rev <= h.base {
		return
	}
	rev = min(rev, h.last())
	// A fresh array, not a reslice: the old one would pin every dropped entry.
	h.events = append(make([]Event, 0, int(h.last()-rev)+64), h.events[rev-h.base:]...)
	h.base = rev
	i := 0
	for i+1 < len(h.epochs) && h.epochs[i+1].first <= rev+1 {
		i++
	}
	if i > 0 {
		h.epochs = append([]epoch(nil), h.epochs[i:]...)
	}
	if len(h.events) == 0 {
		h.reset(rev)
	}
}

// since returns the events after rev, sharing memory: read only while the store is locked.
func (h *history) since(rev uint64) []Event { return h.events[rev-h.base:] }
