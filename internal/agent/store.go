package agent

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

// entry is what is known of one container in Podman.
type entry struct {
	plan.Container
	uid     types.UID
	pod     string // Podman's name of the pod, for what has no API object any more
	pid     int
	static  string        // Podman's directory of the container; known after an inspection
	ended   chan struct{} // closed when it has ended or is gone
	settled bool          // reason and message are filled in
	failed  plan.FailedProbe
	cutOff  bool      // a reboot ended it: the exit code is not its own
	added   time.Time // when this process learned of it
}

// store holds the containers of this node. It is a cache of Podman: made from a list, kept current
// by what the workers do and by exit hints, and corrected by each further list.
type store struct {
	boot string
	now  func() time.Time

	mu   sync.Mutex
	byID map[string]*entry
	// Invariant: byPod holds the same entries as byID.
	byPod map[types.UID]map[string]*entry
	// early holds exits that were seen before their container was: Create had not returned yet.
	early map[string]podman.Exit
}

func newStore(boot string, now func() time.Time) *store {
	return &store{
		boot: boot, now: now, byID: map[string]*entry{}, byPod: map[types.UID]map[string]*entry{},
		early: map[string]podman.Exit{},
	}
}

// of returns the containers of a pod, oldest attempt first.
func (s *store) of(uid types.UID) []plan.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]plan.Container, 0, len(s.byPod[uid]))
	for _, e := range s.byPod[uid] {
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

// uids returns the pods that have containers.
func (s *store) uids() map[types.UID]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[types.UID]bool, len(s.byPod))
	for uid := range s.byPod {
		out[uid] = true
	}
	return out
}

// get returns a copy of what is known of a container.
func (s *store) get(id string) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byID[id]
	if !ok {
		return entry{}, false
	}
	return *e, true
}

// running counts the containers that run.
func (s *store) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.byID {
		if e.State == plan.Running {
			n++
		}
	}
	return n
}

// update changes one entry under the lock; false when it is gone.
func (s *store) update(id string, change func(*entry)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byID[id]
	if ok {
		change(e)
		e.closeIfEnded()
	}
	return ok
}

func (e *entry) closeIfEnded() {
	if e.State != plan.Exited {
		return
	}
	select {
	case <-e.ended:
	default:
		close(e.ended)
	}
}

// add enters a container that a worker has just created.
func (s *store) add(e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.byID[e.ID]; ok { // a list was faster
		old.Image, old.ImageID = e.Image, e.ImageID
		return
	}
	s.insert(&e)
}

func (s *store) insert(e *entry) {
	e.ended, e.added = make(chan struct{}), s.now()
	s.byID[e.ID] = e
	if s.byPod[e.uid] == nil {
		s.byPod[e.uid] = map[string]*entry{}
	}
	s.byPod[e.uid][e.ID] = e
	if x, ok := s.early[e.ID]; ok {
		delete(s.early, e.ID)
		e.exit(x)
	}
	e.closeIfEnded()
}

func (s *store) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(id)
}

func (s *store) drop(id string) {
	e, ok := s.byID[id]
	if !ok {
		return
	}
	select {
	case <-e.ended:
	default:
		close(e.ended)
	}
	delete(s.byID, id)
	delete(s.byPod[e.uid], id)
	if len(s.byPod[e.uid]) == 0 {
		delete(s.byPod, e.uid)
	}
}

// exited takes an exit hint and returns the pod concerned, "" when there is none.
func (s *store) exited(x podman.Exit) types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byID[x.ID]
	if !ok {
		if len(s.early) < 1024 { // other people's containers end too
			s.early[x.ID] = x
		}
		return ""
	}
	if e.State == plan.Exited {
		return ""
	}
	e.exit(x)
	e.closeIfEnded()
	return e.uid
}

func (e *entry) exit(x podman.Exit) {
	e.State, e.ExitCode, e.Finished = plan.Exited, x.Code, x.At
	if e.Started.IsZero() {
		e.Started = x.At
	}
}

// replace takes a complete list, begun at the given time, and returns the pods whose containers
// changed. Knowledge never goes back: an ended container does not run again because a list is old.
func (s *store) replace(list []podman.Container, begun time.Time) map[types.UID]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[types.UID]bool{}
	seen := map[string]bool{}
	for i := range list {
		id, ours := podspec.Identify(list[i].Labels)
		if !ours || list[i].Infra {
			continue
		}
		seen[list[i].ID] = true
		fresh := s.convert(&list[i], id)
		old, known := s.byID[fresh.ID]
		switch {
		case !known:
			s.insert(fresh)
			changed[fresh.uid] = true
		case old.State == fresh.State || old.State == plan.Exited ||
			fresh.State == plan.Created && old.State == plan.Running:
			old.pid = fresh.pid
		default:
			changed[fresh.uid] = true
			fresh.ended, fresh.added, fresh.static, fresh.Restart = old.ended, old.added, old.static, old.Restart
			*old = *fresh
			old.closeIfEnded()
		}
	}
	for id, e := range s.byID {
		if !seen[id] && e.added.Before(begun) {
			changed[e.uid] = true
			s.drop(id)
		}
	}
	clear(s.early)
	return changed
}

// convert reads what a list says of a container of ours.
func (s *store) convert(c *podman.Container, id podspec.Ident) *entry {
	e := &entry{
		uid: types.UID(id.UID), pod: c.PodID, pid: c.Pid, static: c.StaticDir,
		Container: plan.Container{
			ID: c.ID, Name: id.Container, Init: id.Init, Attempt: id.Attempt, Hash: id.Hash, Boot: id.BootID,
			ExitCode: c.ExitCode, Created: c.Created, Started: c.Started, Finished: c.Finished,
			Image: c.Image, ImageID: imageID(c.ImageID, nil),
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
	// case with a start and no end; only an end that was recorded before counts.
	recorded := !c.Finished.IsZero() && !c.Finished.Before(c.Started)
	if id.BootID != s.boot && e.State == plan.Exited && !recorded || e.State == plan.Created && !c.Started.IsZero() {
		e.cutOff, e.State = true, plan.Exited
		e.ExitCode, e.Finished = plan.ExitCodeCutOff, time.Time{}
	}
	return e
}

// imageID writes an image's identity as the API wants it: by digest where it came from a registry.
func imageID(id string, digests []string) string {
	if len(digests) > 0 {
		return digests[0]
	}
	if id == "" || strings.HasPrefix(id, "sha256:") {
		return id
	}
	return "sha256:" + id
}
