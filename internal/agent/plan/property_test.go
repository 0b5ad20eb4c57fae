package plan

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// world is a Podman that does what plans say, and lets containers end as they like.
type world struct {
	in   Input
	next int
	// code is how a container ends; it runs on when there is none.
	code map[string]int32
}

func (w *world) find(id string) *Container {
	for i := range w.in.Containers {
		if w.in.Containers[i].ID == id {
			return &w.in.Containers[i]
		}
	}
	return nil
}

func (w *world) carryOut(t *rapid.T, p Plan) {
	if len(p.Kill) > 0 {
		for _, k := range p.Kill {
			c := w.find(k.Container.ID)
			c.State, c.ExitCode, c.Finished, c.Restart = Exited, 137, w.in.Now, k.Restart
		}
		return
	}
	for _, id := range p.Remove {
		c := w.find(id)
		if c.State == Running {
			t.Fatalf("a running container is removed: %+v", c)
		}
		w.drop(id)
	}
	for _, s := range p.Start {
		if s.Replaces != "" {
			w.drop(s.Replaces)
		}
		for _, c := range w.in.Containers {
			if c.Name == s.Spec.Name && c.State == Running {
				t.Fatalf("a second %s is started", c.Name)
			}
			if c.Name == s.Spec.Name && c.Attempt >= s.Attempt {
				t.Fatalf("attempt %d of %s follows %d", s.Attempt, c.Name, c.Attempt)
			}
			if !s.Init && c.Init && c.State == Running {
				t.Fatalf("%s starts while %s runs", s.Spec.Name, c.Name)
			}
		}
		w.next++
		c := Container{
			ID: fmt.Sprint("new", w.next), Name: s.Spec.Name, Init: s.Init, Attempt: s.Attempt, Boot: boot,
			Hash: podspec.Hash(s.Spec), State: Running, Created: w.in.Now, Started: w.in.Now,
		}
		if !s.Failed.IsZero() {
			w.in.Backoffs[s.Spec.Name] = w.in.Backoffs[s.Spec.Name].Next(s.Failed, w.in.Now)
		}
		if code, ends := w.code[s.Spec.Name]; ends {
			c.State, c.ExitCode, c.Finished = Exited, code, w.in.Now
		}
		w.in.Containers = append(w.in.Containers, c)
	}
}

func (w *world) drop(id string) {
	for i := range w.in.Containers {
		if w.in.Containers[i].ID == id {
			w.in.Containers = append(w.in.Containers[:i:i], w.in.Containers[i+1:]...)
			return
		}
	}
}

// From any observed state, planning and acting again and again comes to rest: nothing is left to do,
// or only time is waited for. On the way nothing runs twice and order is kept; the status computed
// of each state is stable, and a pod that is over stays over.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := func(label, prefix string, least int) (out []string) {
			for i := range rapid.IntRange(least, 3).Draw(t, label) {
				out = append(out, fmt.Sprint(prefix, i))
			}
			return out
		}
		inits, conts := names("inits", "i", 0), names("containers", "c", 1)
		policy := rapid.SampledFrom([]corev1.RestartPolicy{
			corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever,
		}).Draw(t, "policy")
		pod := makePod(policy, "", "")
		w := &world{code: map[string]int32{}}
		for _, n := range inits {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: n, Image: "img"})
			w.code[n] = rapid.SampledFrom([]int32{0, 0, 1}).Draw(t, "code "+n)
		}
		for _, n := range conts {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: n, Image: "img"})
			if rapid.Bool().Draw(t, "ends "+n) {
				w.code[n] = rapid.SampledFrom([]int32{0, 1}).Draw(t, "code "+n)
			}
		}
		w.in = Input{Pod: pod, Boot: boot, Now: t0, Backoffs: map[string]Backoff{}}
		w.in.Containers = drawContainers(t, inits, conts)
		old := corev1.PodStatus{}
		for range 30 {
			p := Compute(w.in)
			s := Status(StatusInput{Pod: pod, Old: old, Containers: w.in.Containers, Boot: boot, Now: w.in.Now})
			if Terminal(old.Phase) && s.Phase != old.Phase {
				t.Fatalf("%s became %s", old.Phase, s.Phase)
			}
			if s.Phase == corev1.PodSucceeded && policy == corev1.RestartPolicyAlways {
				t.Fatal("a pod that always runs succeeded")
			}
			old = s
			if p.Idle() {
				if !p.Wake.IsZero() && !p.Wake.After(w.in.Now) {
					t.Fatalf("it waits for the past: %v", p.Wake)
				}
				if p.Done && !Terminal(s.Phase) {
					t.Fatalf("nothing will be done any more, yet the pod is %s: %+v", s.Phase, w.in.Containers)
				}
				return
			}
			w.in.Now = w.in.Now.Add(time.Millisecond)
			w.carryOut(t, p)
		}
		t.Fatalf("it does not come to rest: %s with %+v", show(Compute(w.in)), w.in.Containers)
	})
}

func drawContainers(t *rapid.T, inits, conts []string) []Container {
	var out []Container
	n := 0
	add := func(name string, init bool) {
		for a := range rapid.IntRange(0, 3).Draw(t, "attempts "+name) {
			n++
			c := Container{
				ID: fmt.Sprint("old", n), Name: name, Init: init, Attempt: a,
				Boot:  rapid.SampledFrom([]string{boot, boot, "b0"}).Draw(t, "boot"),
				State: rapid.SampledFrom([]State{Created, Running, Exited, Exited, Unknown}).Draw(t, "state"),
				Hash:  podspec.Hash(&corev1.Container{Name: name, Image: "img"}), Created: t0.Add(time.Duration(n) * time.Second),
			}
			if c.Boot != boot && c.State == Running {
				c.State = Exited
			}
			if c.State == Exited {
				c.ExitCode = rapid.SampledFrom([]int32{0, 1, 255}).Draw(t, "code")
				c.Finished = t0
			}
			// Only the newest attempt can be alive.
			for i := range out {
				if out[i].Name == name && out[i].State != Exited {
					out[i].State, out[i].ExitCode, out[i].Finished = Exited, 1, t0
				}
			}
			out = append(out, c)
		}
	}
	for _, name := range inits {
		add(name, true)
	}
	for _, name := range conts {
		add(name, false)
	}
	// Where an ordinary container was made in this boot, initialisation was over.
	for _, c := range out {
		if c.Init || c.Boot != boot {
			continue
		}
		for i := range out {
			if out[i].Init && out[i].State != Exited {
				out[i].State, out[i].Finished = Exited, t0
			}
		}
	}
	return out
}
