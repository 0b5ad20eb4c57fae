package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Config is what drills work on.
type Config struct {
	Node   string // this one
	Freeze bool   // --on-quorum-loss=freeze
	Store  *state.Store
	Peers  *peers.Peers
	Client kubernetes.Interface
	// Members lists the members of the swarm.
	Members func(context.Context) ([]swarm.Member, error)
	// PlayDead has this node's agent die after delay and start again after pause. It returns at once;
	// failed is called when the agent could not die.
	PlayDead func(delay, pause time.Duration, failed func(error)) error
	// Pause is how long a node plays dead; 0: 30 s.
	Pause time.Duration
	Log   *slog.Logger
}

// Drills rehearse the loss of a node: this node watches, another one plays dead.
type Drills struct {
	Config
	dying atomic.Bool   // this node is about to play dead
	over  chan struct{} // closed when this node's agent ends
}

// New does no I/O. End ends what is under way.
func New(cfg Config) *Drills {
	if cfg.Pause <= 0 {
		cfg.Pause = usualPause
	}
	return &Drills{Config: cfg, over: make(chan struct{})}
}

// End has the drills that this node watches end: it watches nothing any more.
func (d *Drills) End() { close(d.over) }

// Question is how a node is asked to play dead, answered by Obey.
const Question = "drill"

const (
	// key says that a drill is under way: there is one at a time.
	key = "/swarm/drill"
	// lull lets the answer of a node that is about to play dead get through.
	lull = 200 * time.Millisecond

	detectBudget  = 4100 * time.Millisecond
	replaceGoal   = 5 * time.Second
	replaceBudget = 8 * time.Second
	returnBudget  = 20 * time.Second

	detectPatience  = 20 * time.Second
	replacePatience = time.Minute
	returnPatience  = 3 * time.Minute
	// life is more than all of them: what a drill leaves in the state is gone after it in any case.
	life        = usualPause + returnPatience + 2*time.Minute
	returnPoll  = 200 * time.Millisecond
	releaseTime = 10 * time.Second
)

// order is what a node that shall play dead is told, dying what it answers.
type order struct {
	For swarm.Duration `json:"for"`
}

type dying struct {
	In swarm.Duration `json:"in"`
}

// Obey answers an order to play dead.
func (d *Drills) Obey(_ context.Context, argument string) (any, error) {
	var o order
	if err := json.Unmarshal([]byte(argument), &o); err != nil {
		return nil, fmt.Errorf("read order: %w", err)
	}
	if o.For <= 0 || time.Duration(o.For) > life {
		return nil, fmt.Errorf("playing dead for %s makes no sense", o.For)
	}
	if !d.dying.CompareAndSwap(false, true) {
		return nil, errors.New("it is about to play dead already")
	}
	err := d.PlayDead(lull, time.Duration(o.For), func(err error) {
		d.Log.Error("play dead", "err", err)
		d.dying.Store(false)
	})
	if err != nil {
		d.dying.Store(false)
		return nil, err
	}
	d.Log.Warn("this node plays dead in a moment: a drill", "for", o.For)
	return dying{In: swarm.Duration(lull)}, nil
}

// Drill implements swarm.Drills. It goes on to its end when the client has gone.
func (d *Drills) Drill(ctx context.Context, req swarm.DrillRequest, say swarm.Progress) (swarm.DrillResult, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), life)
	defer cancel()
	go func() {
		select {
		case <-d.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := d.Store.Barrier(ctx); err != nil {
		return swarm.DrillResult{}, swarm.Unavailable("a drill needs a leader: %v", err)
	}
	a, err := watchPods(ctx, d.Client)
	if err != nil {
		return swarm.DrillResult{}, err
	}
	defer a.leave()
	s, err := d.stage(ctx, a)
	if err != nil {
		return swarm.DrillResult{}, err
	}
	p, err := s.choose(req.Node)
	if err != nil {
		return swarm.DrillResult{}, err
	}
	result := swarm.DrillResult{Node: p.node.Name, DryRun: req.DryRun, Plan: p.sentences(), Pods: len(p.replaced)}
	if !req.DryRun {
		release, err := d.claim(ctx, p.node.Name)
		if err != nil {
			return result, err
		}
		defer release()
		if result.Timings, err = d.perform(ctx, a, p, say); err != nil {
			return result, err
		}
	}
	result.Finished = time.Now().UTC()
	return result, nil
}

// stage gathers what a plan is made of.
func (d *Drills) stage(ctx context.Context, a *audience) (stage, error) {
	s := stage{self: d.Node, pause: d.Pause, freeze: d.Freeze}
	var err error
	if s.members, err = d.Members(ctx); err != nil {
		return s, err
	}
	if s.nodes, err = a.nodes.List(labels.Everything()); err != nil {
		return s, err
	}
	if s.pods, err = a.pods.List(labels.Everything()); err != nil {
		return s, err
	}
	s.sets, err = a.complete()
	return s, err
}

// claim keeps other drills away until release.
func (d *Drills) claim(ctx context.Context, node string) (release func(), err error) {
	mark, err := json.Marshal(map[string]string{"node": node, "by": d.Node})
	if err != nil {
		return nil, err
	}
	done, err := d.Store.Apply(ctx, state.Write{Key: key, Value: mark, TTL: int64(life / time.Second)})
	if errors.Is(err, state.ErrConflict) {
		return nil, swarm.Refused("another drill is under way: wait until it has ended, which takes about a minute")
	}
	if err != nil {
		return nil, swarm.Unavailable("note that a drill begins: %v", err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
		defer cancel()
		_, err := d.Store.Apply(ctx, state.Write{Key: key, Delete: true, Expect: done.Entry.ModRevision})
		if err != nil && !errors.Is(err, state.ErrConflict) {
			d.Log.Warn("end a drill", "err", err, "expires", life)
		}
	}, nil
}

// perform has the node play dead, watches, and puts back what does not come back by itself.
func (d *Drills) perform(ctx context.Context, a *audience, p plan, say swarm.Progress) ([]swarm.Timing, error) {
	node := p.node.Name
	argument, err := json.Marshal(order{For: swarm.Duration(p.pause)})
	if err != nil {
		return nil, err
	}
	var answer dying
	if err := d.Peers.Ask(ctx, p.node.Address, Question, string(argument), &answer); err != nil {
		return nil, swarm.Unavailable("node %s does not play dead: %v", node, err)
	}
	died := time.Now().Add(time.Duration(answer.In))
	say("%s plays dead for %s", node, p.pause)
	var lost, replaced, back swarm.Timing
	var returned error
	var all sync.WaitGroup
	all.Go(func() {
		lost = timing(ctx, "detection", died, detectBudget, detectPatience, say, func(ctx context.Context) (time.Time, error) { return d.detectedAt(ctx, node) })
	})
	if len(p.replaced) > 0 {
		all.Go(func() {
			replaced = timing(ctx, "replacement", died, replaceBudget, replacePatience, say, func(ctx context.Context) (time.Time, error) {
				return a.replacedAt(ctx, p.sets(), node)
			})
		})
	}
	all.Go(func() {
		start := died.Add(p.pause)
		back = timing(ctx, "return", start, returnBudget, p.pause+returnPatience, say, func(ctx context.Context) (at time.Time, err error) {
			at, returned = d.returnedAt(ctx, a, p.node, start)
			return at, returned
		})
	})
	all.Wait()
	if returned != nil {
		return nil, fmt.Errorf("node %s has not come back: %w: look at its log; if no agent runs there, start it", node, returned)
	}
	a.settled(ctx, node)
	timings := []swarm.Timing{lost}
	if len(p.replaced) > 0 {
		timings = append(timings, replaced)
	}
	return append(timings, back), d.putBack(ctx, p.bare, say)
}

// timing waits for something and says when it happened. Who waits in vain has waited for the whole patience.
func timing(ctx context.Context, name string, from time.Time, budget, patience time.Duration, say swarm.Progress, wait func(context.Context) (time.Time, error)) swarm.Timing {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	at, err := wait(ctx)
	if err != nil {
		at = time.Now()
		say("%s: not yet after %s: %v", name, at.Sub(from).Round(time.Second), err)
	} else {
		limit := fmt.Sprintf("at most %s", budget)
		if budget == replaceBudget {
			limit = fmt.Sprintf("goal %s, %s", replaceGoal, limit)
		}
		say("%s: %s (%s)", name, at.Sub(from).Round(10*time.Millisecond), limit)
	}
	return swarm.Timing{Name: name, Took: swarm.Duration(max(0, at.Sub(from))), Budget: swarm.Duration(budget)}
}

// detectedAt waits until gossip says that the node is dead.
func (d *Drills) detectedAt(ctx context.Context, node string) (time.Time, error) {
	for {
		changed := d.Peers.Changed()
		if m, ok := d.Peers.Member(node); !ok || m.State == gossip.Dead {
			return time.Now(), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, errors.New("nobody has noticed")
		}
	}
}

// returnedAt waits until the node answers again and its object says that it is ready.
func (d *Drills) returnedAt(ctx context.Context, a *audience, m swarm.Member, start time.Time) (time.Time, error) {
	again := time.NewTimer(time.Until(start))
	defer again.Stop()
	why := errors.New("its agent does not answer")
	for {
		select {
		case <-again.C:
		case <-ctx.Done():
			return time.Time{}, why
		}
		again.Reset(returnPoll)
		var w peers.Words
		if err := d.Peers.Ask(ctx, m.Address, "words", "", &w); err != nil || w.Node != m.Name {
			continue
		}
		why = errors.New("its agent answers, its node object is not ready")
		if n, err := a.nodes.Get(m.Name); err == nil && isReady(n) && !lostTaint(n) {
			return time.Now(), nil
		}
	}
}

func lostTaint(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Key == corev1.TaintNodeUnreachable {
			return true
		}
	}
	return false
}

// putBack makes the pods again that have no controller.
func (d *Drills) putBack(ctx context.Context, bare []*corev1.Pod, say swarm.Progress) error {
	for _, p := range bare {
		if err := d.makeAgain(ctx, p, say); err != nil {
			return fmt.Errorf("make pod %s/%s again: %w", p.Namespace, p.Name, err)
		}
	}
	return nil
}

func (d *Drills) makeAgain(ctx context.Context, p *corev1.Pod, say swarm.Progress) error {
	pods := d.Client.CoreV1().Pods(p.Namespace)
	ctx, cancel := context.WithTimeout(ctx, replacePatience)
	defer cancel()
	for {
		now, err := pods.Get(ctx, p.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = pods.Create(ctx, blank(p), metav1.CreateOptions{})
			if err == nil {
				say("pod %s/%s is made again", p.Namespace, p.Name)
			}
			if !apierrors.IsAlreadyExists(err) {
				return err
			}
		case err != nil:
			return err
		case now.DeletionTimestamp == nil:
			return nil
		}
		select {
		case <-time.After(returnPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// blank is a pod as somebody might have written it: not bound yet.
func blank(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: p.Name, Namespace: p.Namespace, Labels: p.Labels, Annotations: p.Annotations, Finalizers: p.Finalizers,
	}, Spec: *p.Spec.DeepCopy()}
	out.Spec.NodeName = ""
	return out
}
