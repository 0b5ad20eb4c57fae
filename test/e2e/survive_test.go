//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestSurviveKills kills the agent with SIGKILL under eight writers, again and again: no
// acknowledged write may be missing, no resourceVersion may repeat or go back, and the containers
// must not notice. It logs how long the restarts took.
func TestSurviveKills(t *testing.T) {
	kills := rounds(50, 8)
	keepRunning(t)
	ns := namespace(t)
	pod(t, ns, "bystander", "containers: [{name: c, image: 'localhost/echo:1'}]")
	before := await(t, ns, "bystander", 30*time.Second, ready)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var acked atomic.Int64
	var writers sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		writers.Go(func() { results[i] = write(ctx, ns, i, &acked) })
	}
	var restarts []time.Duration
	for round := range kills {
		floor := acked.Load() + 20
		for acked.Load() < floor && ctx.Err() == nil { // every round has writes to lose
			time.Sleep(5 * time.Millisecond)
		}
		if err := machine.SignalAgent(ctx, syscall.SIGKILL); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		began := time.Now()
		if err := startAgent(ctx, machine); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		restarts = append(restarts, time.Since(began).Round(time.Millisecond))
	}
	stop()
	writers.Wait()
	for i, err := range results {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	slices.Sort(restarts)
	t.Logf("%d acknowledged writes over %d kills; ready again after %s (median), %s (longest)", acked.Load(), kills, restarts[kills/2], restarts[kills-1])
	after := await(t, ns, "bystander", 30*time.Second, ready)
	untouched(t, before, after)
}

// untouched compares two sightings of a pod that must not have noticed what happened in between.
func untouched(t *testing.T, before, after *corev1.Pod) {
	t.Helper()
	for i, a := range before.Status.ContainerStatuses {
		if b := after.Status.ContainerStatuses[i]; a.ContainerID != b.ContainerID || a.RestartCount != b.RestartCount {
			t.Errorf("container %s of pod %s is %s (restarts %d), was %s (restarts %d)", a.Name, before.Name, b.ContainerID, b.RestartCount, a.ContainerID, a.RestartCount)
		}
	}
	if before.Status.PodIP != after.Status.PodIP {
		t.Errorf("the address of pod %s changed from %s to %s", before.Name, before.Status.PodIP, after.Status.PodIP)
	}
}

// write counts a ConfigMap up, one acknowledged update after another, until ctx ends; then it
// compares what it was promised with what is there.
func write(ctx context.Context, ns string, id int, acked *atomic.Int64) error {
	var c *kubernetes.Clientset
	var err error
	if c, err = machine.Clientset(); err != nil {
		return err
	}
	maps, name := c.CoreV1().ConfigMaps(ns), fmt.Sprintf("writer-%d", id)
	last, lastRV := 0, uint64(0)
	for next := 1; ctx.Err() == nil; {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": strconv.Itoa(next)}}
		var got *corev1.ConfigMap
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		if last == 0 {
			got, err = maps.Create(call, cm, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) { // the create before the kill was committed, its answer lost
				got, err = maps.Update(call, cm, metav1.UpdateOptions{})
			}
		} else {
			got, err = maps.Update(call, cm, metav1.UpdateOptions{})
		}
		cancel()
		if err != nil {
			if apierrors.IsNotFound(err) {
				return fmt.Errorf("acknowledged %d, but the object is gone", last)
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		rv, err := strconv.ParseUint(got.ResourceVersion, 10, 64)
		if err != nil || rv <= lastRV {
			return fmt.Errorf("resourceVersion %s after %d", got.ResourceVersion, lastRV)
		}
		last, lastRV = next, rv
		next++
		acked.Add(1)
	}
	end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := maps.Get(end, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if n, _ := strconv.Atoi(got.Data["n"]); n < last {
		return fmt.Errorf("acknowledged %d, stored %d", last, n)
	}
	return nil
}

// TestSurvivePowerFailure cuts the power of the whole machine.
func TestSurvivePowerFailure(t *testing.T) {
	keepRunning(t)
	ns := namespace(t)
	psctl(t, "-n", ns, "create", "configmap", "kept", "--from-literal=a=b")
	pod(t, ns, "always", "containers: [{name: c, image: 'localhost/echo:1'}]")
	pod(t, ns, "once", "restartPolicy: Never\ncontainers: [{name: c, image: 'localhost/echo:1'}]")
	pod(t, ns, "done", script("true", ""))
	psctlIn(t, fmt.Sprintf(web, "1"), "-n", ns, "apply", "-f", "-")
	await(t, ns, "always", 30*time.Second, ready)
	await(t, ns, "once", 30*time.Second, ready)
	await(t, ns, "done", 30*time.Second, phase(corev1.PodSucceeded))
	psctl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")

	powerCycle(t)

	psctl(t, "-n", ns, "get", "configmap", "kept")
	p := await(t, ns, "always", 60*time.Second, func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount >= 1 })
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode == 0 {
		t.Errorf("a container that was cut off has last state %+v", last)
	}
	await(t, ns, "once", 60*time.Second, phase(corev1.PodFailed))
	await(t, ns, "done", 10*time.Second, phase(corev1.PodSucceeded))
	psctl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	leftovers(t)
}

func powerCycle(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"crash", machine.Name}, {"boot", machine.Name}} {
		if _, err := machine.Lab(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	if err := startAgent(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
}
