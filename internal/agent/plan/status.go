package plan

import (
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// StatusInput is all that a pod's status depends on.
type StatusInput struct {
	Pod        *corev1.Pod      // the specification, and the status the API server holds
	Old        corev1.PodStatus // what was told last; the API's status when nothing was yet
	Containers []Container
	Health     map[string]Health  // by container ID
	Waiting    map[string]Waiting // by container name: why it does not run
	PodIPs     []string
	HostIPs    []string
	Sandbox    bool   // the pod's network and grouping exist
	Boot       string // the machine's present boot
	Ended      bool   // all containers were stopped for good
	Failed     *Failure
	Now        time.Time
}

// Failure is a pod that the agent itself gave up, with the status's reason and message.
type Failure struct{ Reason, Message string }

// Status computes what the API is to be told. It never leads out of a terminal phase, keeps
// conditions that others own, and changes transition times only with the condition's status.
func Status(in StatusInput) corev1.PodStatus {
	s := corev1.PodStatus{
		ObservedGeneration:          in.Pod.Generation,
		StartTime:                   in.Old.StartTime,
		QOSClass:                    in.Pod.Status.QOSClass,
		NominatedNodeName:           in.Pod.Status.NominatedNodeName,
		ResourceClaimStatuses:       in.Pod.Status.ResourceClaimStatuses,
		ExtendedResourceClaimStatus: in.Pod.Status.ExtendedResourceClaimStatus,
		Resize:                      in.Pod.Status.Resize,
	}
	if s.StartTime == nil {
		s.StartTime = in.Pod.Status.StartTime
	}
	if s.StartTime == nil {
		now := metav1.NewTime(in.Now).Rfc3339Copy()
		s.StartTime = &now
	}
	s.ContainerStatuses = containerStatuses(in, false)
	s.InitContainerStatuses = containerStatuses(in, true)
	if in.Ended {
		closeStatuses(in, &s)
	}
	s.Phase = phase(in, &s)
	s.Reason, s.Message = in.Old.Reason, in.Old.Message
	if s.Phase != in.Old.Phase {
		s.Reason, s.Message = "", ""
	}
	if in.Failed != nil {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, in.Failed.Reason, in.Failed.Message
	}
	for _, p := range []corev1.PodPhase{in.Pod.Status.Phase, in.Old.Phase} {
		if Terminal(p) {
			s.Phase = p
		}
	}
	health(in, &s)
	addresses(in, &s)
	s.Conditions = conditions(in, &s)
	return s
}

// Terminal reports whether a phase is an end.
func Terminal(p corev1.PodPhase) bool {
	return p == corev1.PodSucceeded || p == corev1.PodFailed
}

// Hold keeps the phase back while containers still run: a pod is not over before they are.
func Hold(s, old corev1.PodStatus) corev1.PodStatus {
	if Terminal(s.Phase) && !Terminal(old.Phase) {
		s.Phase, s.Reason, s.Message = old.Phase, old.Reason, old.Message
		if s.Phase == "" {
			s.Phase = corev1.PodPending
		}
	}
	return s
}

func addresses(in StatusInput, s *corev1.PodStatus) {
	for _, ip := range in.HostIPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	ips := in.PodIPs
	if in.Pod.Spec.HostNetwork {
		ips = in.HostIPs
	}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(s.PodIPs) == 0 && in.Ended {
		s.PodIPs = in.Old.PodIPs
	}
	if len(s.HostIPs) > 0 {
		s.HostIP = s.HostIPs[0].IP
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

// health fills in started and ready from what the probes know.
func health(in StatusInput, s *corev1.PodStatus) {
	byID := make(map[string]Health, len(in.Health))
	for id, h := range in.Health {
		byID[ContainerID(id)] = h
	}
	for i := range s.ContainerStatuses {
		c := &s.ContainerStatuses[i]
		h := byID[c.ContainerID]
		started := c.State.Running != nil && h.Started
		c.Started = &started
		c.Ready = started && h.Ready
	}
	for i := range s.InitContainerStatuses {
		c := &s.InitContainerStatuses[i]
		started := c.State.Running != nil
		c.Started = &started
		c.Ready = c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
	}
}

// closeStatuses: after the end no container is left without an outcome; what is not known is an error.
func closeStatuses(in StatusInput, s *corev1.PodStatus) {
	end := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason:   ReasonStatusUnknown,
		Message:  "The container could not be located when the pod was terminated",
		ExitCode: 137,
	}}
	if initialised(in, s) {
		for i := range s.ContainerStatuses {
			if s.ContainerStatuses[i].State.Terminated == nil {
				s.ContainerStatuses[i].State = end
			}
		}
	}
	ran := s.InitContainerStatuses
	for n := len(ran); n > 0; n-- {
		if ran[n-1].State.Waiting == nil || ran[n-1].LastTerminationState.Terminated != nil || n == 1 {
			ran = ran[:n]
			break
		}
	}
	for i := range ran {
		if ran[i].State.Terminated == nil {
			ran[i].State = end
		}
	}
}

func initialised(in StatusInput, s *corev1.PodStatus) bool {
	for i := range s.ContainerStatuses {
		c := &s.ContainerStatuses[i]
		if c.State.Waiting == nil || c.LastTerminationState.Terminated != nil {
			return true
		}
	}
	for i := range s.InitContainerStatuses {
		t := s.InitContainerStatuses[i].State.Terminated
		if t == nil || t.ExitCode != 0 {
			return false
		}
	}
	return len(in.Pod.Spec.InitContainers) == len(s.InitContainerStatuses)
}

// phase follows upstream's getPhase.
func phase(in StatusInput, s *corev1.PodStatus) corev1.PodPhase {
	var pendingInit, failedInit int
	for i := range in.Pod.Spec.InitContainers {
		st := find(s.InitContainerStatuses, in.Pod.Spec.InitContainers[i].Name)
		t := outcome(st)
		switch {
		case st == nil || st.State.Running != nil || t == nil:
			pendingInit++
		case t.ExitCode != 0:
			failedInit++
		}
	}
	if failedInit > 0 && in.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		return corev1.PodFailed
	}
	var unknown, running, waiting, stopped, succeeded, restartable int
	for i := range in.Pod.Spec.Containers {
		name := in.Pod.Spec.Containers[i].Name
		st := find(s.ContainerStatuses, name)
		switch t := outcome(st); {
		case st == nil:
			unknown++
		case st.State.Running != nil:
			running++
		case t == nil:
			waiting++
		default:
			stopped++
			if t.ExitCode == 0 && st.State.Terminated != nil {
				succeeded++
			}
			if restartsAfter(in.Pod, Latest(in.Containers, name), t.ExitCode) {
				restartable++
			}
		}
	}
	switch {
	case pendingInit > 0 && running == 0 && !initialised(in, s) || waiting > 0:
		return corev1.PodPending
	case running > 0 && unknown == 0:
		return corev1.PodRunning
	case running == 0 && stopped > 0 && unknown == 0:
		switch {
		case !in.Ended && restartable > 0:
			return corev1.PodRunning
		case stopped == succeeded:
			return corev1.PodSucceeded
		default:
			return corev1.PodFailed
		}
	case in.Ended:
		return corev1.PodFailed
	default:
		return corev1.PodPending
	}
}

// restartsAfter is the restart policy's word on an exit code, when no container is left to ask.
func restartsAfter(pod *corev1.Pod, x *Container, code int32) bool {
	if x != nil && x.State == Exited && x.Restart {
		return true
	}
	switch pod.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	default:
		return true
	}
}

// outcome is how the container ended, also when it now waits for its restart.
func outcome(st *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case st == nil:
		return nil
	case st.State.Terminated != nil:
		return st.State.Terminated
	case st.State.Waiting != nil:
		return st.LastTerminationState.Terminated
	default:
		return nil
	}
}

func find(all []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// Sorted returns the statuses by name, the order in which the API has always shown them.
func sorted(all []corev1.ContainerStatus) []corev1.ContainerStatus {
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}
