package plan

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// Input is all that the next actions depend on.
type Input struct {
	Pod        *corev1.Pod
	Containers []Container
	Boot       string               // the machine's present boot
	Health     map[string]Health    // by container ID
	Backoffs   map[string]Backoff   // by container name
	Hold       map[string]time.Time // by container name: a failed start is not repeated before
	Now        time.Time
}

// Plan is what to do next, in this order: Kill, Remove, Start. After a Kill the world has changed
// and the plan is made anew before anything is started.
type Plan struct {
	Kill    []Kill
	Remove  []string // IDs of containers nobody needs any more
	Start   []Start
	Waiting map[string]Waiting // containers held by their back-off
	Wake    time.Time          // when time alone changes the plan; zero: never
	// Done: nothing runs that should, and nothing will be started any more.
	Done bool
}

// Kill ends one container.
type Kill struct {
	Container Container
	Spec      *corev1.Container
	Message   string
	Probe     *corev1.Probe // the probe on whose account, nil for other reasons
	Restart   bool          // it is to be started again, whatever its exit code
}

// Start makes and starts one container.
type Start struct {
	Spec     *corev1.Container
	Init     bool
	Attempt  int
	Replaces string    // a container of the same attempt that never ran, removed before
	Failed   time.Time // when the attempt before it ended; zero for a first attempt
}

// Idle reports whether there is nothing to do at present.
func (p Plan) Idle() bool { return len(p.Kill)+len(p.Remove)+len(p.Start) == 0 }

// Compute plans for a pod that is to run. Pods that are being deleted are not planned but ended.
func Compute(in Input) Plan {
	c := &computation{Input: in, plan: Plan{Waiting: map[string]Waiting{}}}
	c.garbage()
	if !c.inits() {
		return c.plan
	}
	keep := 0
	for i := range in.Pod.Spec.Containers {
		if c.regular(&in.Pod.Spec.Containers[i]) {
			keep++
		}
	}
	c.plan.Done = keep == 0
	return c.plan
}

type computation struct {
	Input
	plan Plan
}

// active: made in this boot, so its network and its volumes are those of now.
func (c *computation) active(x *Container) bool { return x.Boot == c.Boot }

// inits reports whether every init container is through; if not, the plan says how it goes on.
func (c *computation) inits() bool {
	specs := c.Pod.Spec.InitContainers
	for i := range c.Pod.Spec.Containers {
		if latest(c.Containers, c.Pod.Spec.Containers[i].Name, c.active) != nil {
			return true
		}
	}
	if len(specs) == 0 || c.succeededBefore() {
		return true
	}
	never := c.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever
	for i := range c.Containers {
		if x := &c.Containers[i]; x.Init && x.State == Running {
			return false // one at a time
		}
	}
	for i := len(specs) - 1; i >= 0; i-- {
		// After a reboot initialisation begins again, unless nothing of the pod may run twice.
		x := latest(c.Containers, specs[i].Name, func(x *Container) bool { return never || c.active(x) })
		if x == nil {
			continue
		}
		switch {
		case x.State != Exited:
			c.start(&specs[i], true)
		case x.ExitCode == 0 && i == len(specs)-1:
			return true
		case x.ExitCode == 0:
			c.start(&specs[i+1], true)
		case never:
			c.plan.Done = true
		default:
			c.start(&specs[i], true)
		}
		return false
	}
	c.start(&specs[0], true)
	return false
}

// succeededBefore: a pod of run-once containers that were all through before the machine went down
// has nothing left to initialise.
func (c *computation) succeededBefore() bool {
	if c.Pod.Spec.RestartPolicy == corev1.RestartPolicyAlways {
		return false
	}
	for i := range c.Pod.Spec.Containers {
		x := Latest(c.Containers, c.Pod.Spec.Containers[i].Name)
		if x == nil || c.restarts(x) {
			return false
		}
	}
	return true
}

// regular plans one ordinary container and reports whether it is running or will be.
func (c *computation) regular(spec *corev1.Container) bool {
	x := Latest(c.Containers, spec.Name)
	if x == nil || x.State != Running {
		if x != nil && !c.restarts(x) {
			return false
		}
		c.start(spec, false)
		return true
	}
	k := Kill{Container: *x, Spec: spec}
	h := c.Health[x.ID]
	restart := c.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever
	switch {
	case x.Hash != "" && x.Hash != podspec.Hash(spec):
		k.Message = fmt.Sprintf("Container %s definition changed", spec.Name)
		restart = true
	case h.Failed == LivenessFailed:
		k.Message = fmt.Sprintf("Container %s failed liveness probe", spec.Name)
		k.Probe = spec.LivenessProbe
	case h.Failed == StartupFailed:
		k.Message = fmt.Sprintf("Container %s failed startup probe", spec.Name)
		k.Probe = spec.StartupProbe
	default:
		return true
	}
	if restart {
		k.Message += ", will be restarted"
	}
	k.Restart = restart
	c.plan.Kill = append(c.plan.Kill, k)
	return true
}

// restarts reports whether an ended container is to be started again.
func (c *computation) restarts(x *Container) bool {
	return shouldRestart(c.Pod, x)
}

func shouldRestart(pod *corev1.Pod, x *Container) bool {
	switch {
	case pod.DeletionTimestamp != nil:
		return false
	case x == nil || x.State == Created || x.State == Unknown || x.Restart && x.State == Exited:
		return true
	case x.State == Running:
		return false
	}
	switch pod.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return x.ExitCode != 0
	default:
		return true
	}
}

// start plans a start now, or names the time when it is due.
func (c *computation) start(spec *corev1.Container, init bool) {
	x := Latest(c.Containers, spec.Name)
	s := Start{Spec: spec, Init: init, Attempt: c.attempt(spec, x, init)}
	if x != nil && x.State == Unknown {
		c.plan.Kill = append(c.plan.Kill, Kill{
			Container: *x, Spec: spec, Restart: true,
			Message: fmt.Sprintf("Container is in %q state, try killing it before restart", x.State),
		})
		return
	}
	if x != nil && x.State == Created {
		s.Replaces = x.ID
	}
	if until := c.Hold[spec.Name]; until.After(c.Now) {
		c.wake(until)
		return
	}
	if x != nil && x.State == Exited && c.active(x) {
		s.Failed = x.Finished
		b := c.Backoffs[spec.Name]
		if until := b.Until(x.Finished); until.After(c.Now) {
			c.plan.Waiting[spec.Name] = Waiting{
				Reason: "CrashLoopBackOff",
				Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", b.Delay, spec.Name,
					PodLabel(c.Pod)),
			}
			c.wake(until)
			return
		}
	}
	c.plan.Start = append(c.plan.Start, s)
}

// attempt numbers the next try. What the API remembers counts too: containers may have been lost
// together with their storage.
func (c *computation) attempt(spec *corev1.Container, x *Container, init bool) int {
	told := c.Pod.Status.ContainerStatuses
	if init {
		told = c.Pod.Status.InitContainerStatuses
	}
	n := 0
	for i := range told {
		if told[i].Name == spec.Name && told[i].ContainerID != "" &&
			(x == nil || told[i].ContainerID != ContainerID(x.ID)) {
			n = int(told[i].RestartCount)
			if x == nil {
				n++
			}
		}
	}
	if x == nil {
		return n
	}
	if x.State == Created {
		return max(n, x.Attempt)
	}
	return max(n, x.Attempt+1)
}

func (c *computation) wake(t time.Time) {
	if c.plan.Wake.IsZero() || t.Before(c.plan.Wake) {
		c.plan.Wake = t
	}
}

// garbage: of each container the newest attempt and the one before it are kept.
func (c *computation) garbage() {
	for i := range c.Containers {
		x := &c.Containers[i]
		if x.State == Running || x.State == Unknown {
			continue
		}
		newer := 0
		for j := range c.Containers {
			if y := &c.Containers[j]; y.Name == x.Name && newerThan(y, x) {
				newer++
			}
		}
		if newer >= 2 {
			c.plan.Remove = append(c.plan.Remove, x.ID)
		}
	}
}

func newerThan(a, b *Container) bool {
	if a.Attempt != b.Attempt {
		return a.Attempt > b.Attempt
	}
	if !a.Created.Equal(b.Created) {
		return a.Created.After(b.Created)
	}
	return a.ID > b.ID
}
