package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/podman"
)

const (
	// lookAgain is how long after a look that could not dispel a doubt the next one is.
	lookAgain = time.Second
	// maxLooks bounds them; then it is for the lists to find out.
	maxLooks = 30
	// firstLook is how long after its start a container is looked at once, in case its end was not heard of.
	firstLook = 2 * time.Second
)

// doubt is a container that may have ended.
type doubt struct {
	due   time.Time
	looks int  // made so far
	once  bool // nobody said that it has ended: one look is enough
}

// doubts are the containers that may have ended, by ID; "" stands for all of them.
type doubts struct {
	mu   sync.Mutex
	byID map[string]doubt
	wake chan struct{} // capacity 1: there is an earlier one
}

func newDoubts() *doubts { return &doubts{byID: map[string]doubt{}, wake: make(chan struct{}, 1)} }

func (d *doubts) add(id string, x doubt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if have, ok := d.byID[id]; ok && !have.once && x.once {
		return // what somebody said counts for more
	}
	d.byID[id] = x
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// take removes and returns those that are due.
func (d *doubts) take(now time.Time) map[string]doubt {
	d.mu.Lock()
	defer d.mu.Unlock()
	due := map[string]doubt{}
	for id, x := range d.byID {
		if !x.due.After(now) {
			due[id] = x
			delete(d.byID, id)
		}
	}
	return due
}

// next is when the first one is due; false: there is none.
func (d *doubts) next() (at time.Time, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.byID {
		if !ok || x.due.Before(at) {
			at, ok = x.due, true
		}
	}
	return at, ok
}

// dispel asks Podman about the containers in doubt until ctx ends.
func (a *Agent) dispel(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.doubts.wake:
		case <-timer.C:
		}
		a.lookAll(ctx, a.doubts.take(a.cfg.Now()))
		timer.Stop()
		if at, ok := a.doubts.next(); ok {
			timer.Reset(max(at.Sub(a.cfg.Now()), 0))
		}
	}
}

func (a *Agent) lookAll(ctx context.Context, due map[string]doubt) {
	if x, ok := due[""]; ok { // its answer may settle the others
		a.settle("", x, a.relist(ctx))
		delete(due, "")
	}
	for id, x := range due {
		e, ok := a.host.Ledger.Get(id)
		if !ok || e.State == plan.Exited || ctx.Err() != nil {
			continue
		}
		a.settle(id, x, a.look(ctx, id))
	}
}

var errStillRuns = errors.New("podman says that it runs")

// look asks Podman about one container.
func (a *Agent) look(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	uid, err := a.host.Look(ctx, id)
	if uid != "" {
		a.poke(uid)
	}
	if e, ok := a.host.Ledger.Get(id); err == nil && ok && e.State != plan.Exited {
		return errStillRuns
	}
	return err
}

// settle has a look repeated that did not bring certainty.
func (a *Agent) settle(id string, x doubt, err error) {
	if err == nil || x.once && errors.Is(err, errStillRuns) {
		return
	}
	a.trouble(err)
	if x.looks++; x.looks >= maxLooks {
		a.cfg.Log.Warn("whether a container has ended cannot be found out", "container", id, "err", err)
		return
	}
	x.due = a.cfg.Now().Add(lookAgain)
	a.doubts.add(id, x)
}

// hear takes what is told of a container's end.
func (a *Agent) hear(x podman.Exit) {
	if x.ID == "" || x.Unread {
		a.doubts.add(x.ID, doubt{due: a.cfg.Now()})
		return
	}
	uid := a.host.Ledger.Exited(x)
	if uid == "" {
		return
	}
	if e, ok := a.host.Ledger.Get(x.ID); ok {
		a.host.Probes.Remove(uid, e.Name)
	}
	a.poke(uid)
}

// launched has a container looked at that was just started.
func (a *Agent) launched(id string) {
	a.doubts.add(id, doubt{due: a.cfg.Now().Add(firstLook), once: true})
}
