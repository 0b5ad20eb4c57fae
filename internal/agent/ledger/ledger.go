package ledger

import (
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// Entry is what is known of one container in Podman.
type Entry struct {
	plan.Container
	UID     types.UID
	Pod     types.NamespacedName // as Podman's labels say; empty when it was not read from Podman
	PID     int
	Static  string        // Podman's directory of the container; known after an inspection
	Ended   chan struct{} // closed when it has ended or is gone
	Settled bool          // reason and message are filled in
	Failed  plan.FailedProbe
	CutOff  bool      // a reboot ended it: the exit code is not its own
	Added   time.Time // when this process learned of it
}

// Ledger holds the containers of this node. It is a cache of Podman: made from a list, kept current
// by what the workers do and by exit hints, and corrected by each further list.
type Ledger struct {
	boot     string
	bootTime time.Time
	now      func() time.Time

	mu   sync.Mutex
	byID map[string]*Entry
	// Invariant: byPod holds the same entries as byID.
	byPod map[types.UID]map[string]*Entry
	// early holds exits that were seen before their container was: Create had not returned yet.
	early map[string]podman.Exit
}

// New returns an empty ledger. Containers that were made in another boot than this, which began at
// bootTime, were cut off unless their end was recorded.
func New(boot string, bootTime time.Time, now func() time.Time) *Ledger {
	return &Ledger{
		boot: boot, bootTime: bootTime, now: now, byID: map[string]*Entry{}, byPod: map[types.UID]map[string]*Entry{},
		early: map[string]podman.Exit{},
	}
}

// Of returns the containers of a pod, oldest attempt first.
func (l *Ledger) Of(uid types.UID) []plan.Container {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]plan.Container, 0, len(l.byPod[uid]))
	for _, e := range l.byPod[uid] {
		out = append(out, e.Container)
	}
	slices.SortFunc(out, func(a, b plan.Container) int {
		if a.Attempt != b.Attempt {
			return a.Attempt - b.Attempt
		}
		return strings.Compare(a.Name+a.ID, b.Name+b.ID)
	})
	return out
}

// UIDs returns the pods that have containers.
func (l *Ledger) UIDs() map[types.UID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[types.UID]bool, len(l.byPod))
	for uid := range l.byPod {
		out[uid] = true
	}
	return out
}

// Pod returns the name of a pod whose containers were read from Podman, empty when there are none.
func (l *Ledger) Pod(uid types.UID) types.NamespacedName {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.byPod[uid] {
		return e.Pod
	}
	return types.NamespacedName{}
}

// Get returns a copy of what is known of a container.
func (l *Ledger) Get(id string) (Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byID[id]
	if !ok {
		return Entry{}, false
	}
	return *e, true
}

// Running counts the containers that run.
func (l *Ledger) Running() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.byID {
		if e.State == plan.Running {
			n++
		}
	}
	return n
}

// Update changes one entry under the lock; false when it is gone.
func (l *Ledger) Update(id string, change func(*Entry)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byID[id]
	if ok {
		change(e)
		e.closeIfEnded()
	}
	return ok
}

func (e *Entry) closeIfEnded() {
	if e.State != plan.Exited {
		return
	}
	select {
	case <-e.Ended:
	default:
		close(e.Ended)
	}
}

// Add enters a container that a worker has just created.
func (l *Ledger) Add(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.byID[e.ID]; ok { // a list was faster
		old.Image, old.ImageID = e.Image, e.ImageID
		return
	}
	l.insert(&e)
}

func (l *Ledger) insert(e *Entry) {
	e.Ended, e.Added = make(chan struct{}), l.now()
	l.byID[e.ID] = e
	if l.byPod[e.UID] == nil {
		l.byPod[e.UID] = map[string]*Entry{}
	}
	l.byPod[e.UID][e.ID] = e
	if x, ok := l.early[e.ID]; ok {
		delete(l.early, e.ID)
		e.exit(x)
	}
	e.closeIfEnded()
}

// Remove forgets a container.
func (l *Ledger) Remove(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(id)
}

func (l *Ledger) drop(id string) {
	e, ok := l.byID[id]
	if !ok {
		return
	}
	select {
	case <-e.Ended:
	default:
		close(e.Ended)
	}
	delete(l.byID, id)
	delete(l.byPod[e.UID], id)
	if len(l.byPod[e.UID]) == 0 {
		delete(l.byPod, e.UID)
	}
}

// Exited takes an exit hint and returns the pod concerned, "" when there is none.
func (l *Ledger) Exited(x podman.Exit) types.UID {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byID[x.ID]
	if !ok {
		if len(l.early) < 1024 { // other people's containers end too
			l.early[x.ID] = x
		}
		return ""
	}
	if e.State == plan.Exited {
		return ""
	}
	e.exit(x)
	e.closeIfEnded()
	return e.UID
}

func (e *Entry) exit(x podman.Exit) {
	e.State, e.ExitCode, e.Finished = plan.Exited, x.Code, x.At
	if e.Started.IsZero() {
		e.Started = x.At
	}
}

// Replace takes a complete list, begun at the given time, and returns the pods whose containers
// changed. Knowledge never goes back: an ended container does not run again because a list is old.
func (l *Ledger) Replace(list []podman.Container, begun time.Time) map[types.UID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := map[types.UID]bool{}
	seen := map[string]bool{}
	for i := range list {
		id, ours := podspec.Identify(list[i].Labels)
		if !ours || list[i].Infra {
			continue
		}
		seen[list[i].ID] = true
		fresh := l.convert(&list[i], id)
		old, known := l.byID[fresh.ID]
		switch {
		case !known:
			l.insert(fresh)
			changed[fresh.UID] = true
		case old.State == fresh.State || old.State == plan.Exited ||
			fresh.State == plan.Created && old.State == plan.Running:
			old.PID = fresh.PID
		default:
			changed[fresh.UID] = true
			fresh.Ended, fresh.Added, fresh.Static, fresh.Restart = old.Ended, old.Added, old.Static, old.Restart
			fresh.Image, fresh.ImageID = old.Image, old.ImageID // a list knows no digests
			*old = *fresh
			old.closeIfEnded()
		}
	}
	for id, e := range l.byID {
		if !seen[id] && e.Added.Before(begun) {
			changed[e.UID] = true
			l.drop(id)
		}
	}
	clear(l.early)
	return changed
}

// convert reads what a list says of a container of ours.
func (l *Ledger) convert(c *podman.Container, id podspec.Ident) *Entry {
	e := &Entry{
		UID: types.UID(id.UID), Pod: types.NamespacedName{Namespace: id.Namespace, Name: id.Pod}, PID: c.Pid, Static: c.StaticDir,
		Container: plan.Container{
			ID: c.ID, Name: id.Container, Init: id.Init, Attempt: id.Attempt, Hash: id.Hash, Boot: id.BootID,
			ExitCode: c.ExitCode, Created: c.Created, Started: c.Started, Finished: c.Finished,
			Image: c.Image, ImageID: ImageID(c.ImageID, nil),
		},
	}
	switch c.State {
	case podman.Created:
		e.State = plan.Created
	case podman.Running, podman.Paused, podman.Stopping:
		e.State = plan.Running
	case podman.Exited:
		e.State = plan.Exited
	default:
		e.State = plan.Unknown
	}
	// After a power failure Podman shows what ran then as "exited (0)" or as "created", in either
	// case with a start and no end; only an end that was recorded before counts. Podman 4 for an
	// ordinary user with a storage directory of their own may miss the boot, and calls it running.
	recorded := !c.Finished.IsZero() && !c.Finished.Before(c.Started)
	former := id.BootID != l.boot
	if former && e.State == plan.Running && c.Started.Before(l.bootTime) || former && e.State == plan.Exited && !recorded || e.State == plan.Created && !c.Started.IsZero() {
		e.CutOff, e.State = true, plan.Exited
		e.ExitCode, e.Finished = plan.ExitCodeCutOff, l.bootTime
	}
	return e
}

// ImageID writes an image's identity as the API wants it: by digest where it came from a registry.
func ImageID(id string, digests []string) string {
	if len(digests) > 0 {
		return digests[0]
	}
	if id == "" || strings.HasPrefix(id, "sha256:") {
		return id
	}
	return "sha256:" + id
}
