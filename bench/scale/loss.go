package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"

	"github.com/podman-swarm/podman-swarm/bench/measure"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

const (
	perDeployment = 30
	// podsTime bounds the wait for pods on a machine that is busy with all nodes.
	podsTime = 5 * time.Minute
	// recoverTime bounds the wait for a write after the loss of the leader.
	recoverTime = time.Minute
)

// pods creates Deployments and waits until all their pods run.
func (s *scale) pods(ctx context.Context) error {
	total := s.nodes * s.perNode
	say("%d pods", total)
	watch, err := s.observe(ctx, s.agents[0])
	if err != nil {
		return err
	}
	defer watch.stop()
	begin := time.Now()
	for made := 0; made < total; made += perDeployment {
		name := fmt.Sprintf("d%d", made/perDeployment)
		d := deployment(name, int32(min(perDeployment, total-made)))
		if err := s.create(ctx, s.agents[made/perDeployment%len(s.agents)], d); err != nil {
			return err
		}
	}
	if err := watch.running(ctx, total, nil); err != nil {
		return err
	}
	took := time.Since(begin)
	perNode := watch.perNode()
	s.table.Add(fmt.Sprintf("%d pods to Running, %d nodes", total, s.nodes), took.Seconds(), "s", "",
		fmt.Sprintf("in Deployments of %d; on each node %d to %d", perDeployment, slices.Min(perNode), slices.Max(perNode)))
	return nil
}

// create tries again: on a machine that is too small for so many nodes leaders may be lost.
func (s *scale) create(ctx context.Context, via *agent, d *appsv1.Deployment) error {
	var last error
	err := via.wait(ctx, "creating a Deployment", func(ctx context.Context) bool {
		_, last = via.client.AppsV1().Deployments(ns).Create(ctx, d, metav1.CreateOptions{})
		return last == nil || apierrors.IsAlreadyExists(last)
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	app, no := map[string]string{"app": name}, false
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: app},
				Spec: corev1.PodSpec{
					AutomountServiceAccountToken: &no,
					Containers:                   []corev1.Container{{Name: "c", Image: "localhost/pretend:1"}},
				},
			},
		},
	}
}

// loseLeader kills the leader: how long until a write is acknowledged again, and its pods run elsewhere?
func (s *scale) loseLeader(ctx context.Context) error {
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	return s.lose(ctx, "leader", leader, func(begin time.Time) error {
		took, err := s.nextWrite(ctx, begin)
		if err != nil {
			return err
		}
		s.table.Add(fmt.Sprintf("leader killed to next acknowledged write, %d nodes", s.nodes), measure.MS(took), "ms", "2000 ms", "kill -9; writes tried through three others at once")
		return nil
	})
}

// loseOther kills a node that does not vote, if there is one.
func (s *scale) loseOther(ctx context.Context) error {
	status, err := s.living()[0].members(ctx)
	if err != nil {
		return err
	}
	victim := s.living()[len(s.living())-1]
	for _, a := range s.living() {
		if slices.ContainsFunc(status.Members, func(m swarm.Member) bool { return m.Name == a.name && m.Role == swarm.RoleReplica }) {
			victim = a
		}
	}
	return s.lose(ctx, "replica", victim, func(time.Time) error { return nil })
}

// lose kills a node and waits until its pods run elsewhere.
func (s *scale) lose(ctx context.Context, role string, victim *agent, also func(time.Time) error) error {
	living := s.living()
	watch, err := s.observe(ctx, living[slices.IndexFunc(living, func(a *agent) bool { return a != victim })])
	if err != nil {
		return err
	}
	defer watch.stop()
	total, lost := s.nodes*s.perNode, watch.on(victim.name)
	if err := watch.running(ctx, total, nil); err != nil {
		return err
	}
	noise, err := s.listen()
	if err != nil {
		return err
	}
	say("kill -9 of the %s %s, which runs %d pods", role, victim.name, lost)
	begin := time.Now()
	victim.kill()
	<-victim.exited
	if err := also(begin); err != nil {
		return err
	}
	if err := watch.running(ctx, total, victim); err != nil {
		return err
	}
	took := time.Since(begin)
	delete(noise.agents, victim)
	_, busy, err := noise.since()
	if err != nil {
		return err
	}
	s.table.Add(fmt.Sprintf("%s killed to its pods Running elsewhere, %d nodes", role, s.nodes), measure.MS(took), "ms", "5000 ms", fmt.Sprintf("%d pods; kill -9; %s", lost, busy))
	return nil
}

// nextWrite returns when a write that began after the leader's end was acknowledged.
func (s *scale) nextWrite(ctx context.Context, begin time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	took := make(chan time.Duration, writeNodes)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel()
	for i, a := range s.living()[:min(writeNodes, len(s.living()))] {
		tries.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("after-%d-%d-%d", begin.Unix(), i, n)}}
				if _, err := a.client.CoreV1().ConfigMaps(ns).Create(ctx, cm, metav1.CreateOptions{}); err == nil {
					took <- time.Since(begin)
					return
				}
				_ = measure.Sleep(ctx, poll)
			}
		})
	}
	select {
	case t := <-took:
		return t, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("no write was acknowledged within %s", recoverTime)
	}
}

// observer holds all pods as one node tells them.
type observer struct {
	pods listers.PodLister
	stop context.CancelFunc
}

func (s *scale) observe(ctx context.Context, via *agent) (observer, error) {
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(via.client, 0, informers.WithNamespace(ns))
	o := observer{factory.Core().V1().Pods().Lister(), cancel}
	factory.Start(ctx.Done())
	for _, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			cancel()
			return o, errors.New("list the pods: interrupted")
		}
	}
	return o, nil
}

func (o observer) list() []*corev1.Pod {
	list, err := o.pods.List(labels.Everything())
	if err != nil {
		return nil // a lister over memory has no errors
	}
	return list
}

func up(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning
}

// on counts the pods of a node.
func (o observer) on(node string) (n int) {
	for _, p := range o.list() {
		if p.Spec.NodeName == node {
			n++
		}
	}
	return n
}

func (o observer) perNode() []int {
	count := map[string]int{}
	for _, p := range o.list() {
		count[p.Spec.NodeName]++
	}
	var out []int
	for _, n := range count {
		out = append(out, n)
	}
	return out
}

// running waits until so many pods run on other nodes than that one.
func (o observer) running(ctx context.Context, want int, not *agent) error {
	deadline := time.Now().Add(podsTime)
	for {
		have := 0
		for _, p := range o.list() {
			if up(p) && (not == nil || p.Spec.NodeName != not.name) {
				have++
			}
		}
		if have >= want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d pods run after %s", have, want, podsTime)
		}
		if err := measure.Sleep(ctx, poll); err != nil {
			return err
		}
	}
}
