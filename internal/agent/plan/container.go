package plan

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerStatuses follows upstream's convertToAPIContainerStatuses.
func containerStatuses(in StatusInput, init bool) []corev1.ContainerStatus {
	specs, olds := in.Pod.Spec.Containers, in.Old.ContainerStatuses
	if init {
		specs, olds = in.Pod.Spec.InitContainers, in.Old.InitContainerStatuses
	}
	out := make([]corev1.ContainerStatus, 0, len(specs))
	for i := range specs {
		out = append(out, containerStatus(in, &specs[i], find(olds, specs[i].Name)))
	}
	if init {
		if len(out) == 0 {
			return nil
		}
		completeInits(in, out)
		return out
	}
	return sorted(out)
}

func containerStatus(in StatusInput, spec *corev1.Container, old *corev1.ContainerStatus) corev1.ContainerStatus {
	x := Latest(in.Containers, spec.Name)
	var st corev1.ContainerStatus
	if x == nil {
		st = absent(in, spec, old)
	} else {
		st = present(x, spec, old)
		if st.LastTerminationState.Terminated == nil {
			if p := previous(in.Containers, x); p != nil {
				st.LastTerminationState.Terminated = terminated(p)
			}
		}
	}
	st.VolumeMounts = mountStatuses(spec)
	w, held := in.Waiting[spec.Name]
	if held && !in.Ended && shouldRestart(in.Pod, x) {
		if st.State.Terminated != nil {
			st.LastTerminationState = st.State
		}
		st.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: w.Reason, Message: w.Message,
		}}
	}
	return st
}

// absent: no container exists, so what was told before is all that is known.
func absent(in StatusInput, spec *corev1.Container, old *corev1.ContainerStatus) corev1.ContainerStatus {
	reason := "ContainerCreating"
	if len(in.Pod.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	st := corev1.ContainerStatus{
		Name: spec.Name, Image: spec.Image,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
	}
	if old == nil {
		return st
	}
	if old.State.Terminated != nil {
		return *old.DeepCopy()
	}
	st.RestartCount = old.RestartCount
	st.LastTerminationState = *old.LastTerminationState.DeepCopy()
	if old.State.Running != nil && st.LastTerminationState.Terminated == nil {
		st.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
			Reason:   ReasonStatusUnknown,
			Message:  "The container could not be located when the pod was deleted.  The container used to be Running",
			ExitCode: 137,
		}
		if in.Pod.DeletionTimestamp == nil {
			st.RestartCount++
		}
	}
	return st
}

func present(x *Container, spec *corev1.Container, old *corev1.ContainerStatus) corev1.ContainerStatus {
	st := corev1.ContainerStatus{
		Name:               x.Name,
		RestartCount:       int32(x.Attempt), //nolint:gosec // attempts are small numbers
		Image:              x.Image,
		ImageID:            x.ImageID,
		ContainerID:        ContainerID(x.ID),
		Resources:          spec.Resources.DeepCopy(),
		AllocatedResources: spec.Resources.Requests.DeepCopy(),
	}
	if old != nil && old.ContainerID != st.ContainerID && old.State.Terminated != nil {
		st.LastTerminationState.Terminated = old.State.Terminated.DeepCopy()
	} else if old != nil && old.LastTerminationState.Terminated != nil {
		st.LastTerminationState.Terminated = old.LastTerminationState.Terminated.DeepCopy()
	}
	if spec.Lifecycle != nil {
		st.StopSignal = spec.Lifecycle.StopSignal
	}
	switch x.State {
	case Running:
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(x.Started).Rfc3339Copy()}
	case Exited:
		st.State.Terminated = terminated(x)
	default:
		st.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	}
	return st
}

func terminated(x *Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode:    x.ExitCode,
		Reason:      x.Reason,
		Message:     x.Message,
		ContainerID: ContainerID(x.ID),
	}
	if !x.Started.IsZero() {
		t.StartedAt = metav1.NewTime(x.Started).Rfc3339Copy()
	}
	if !x.Finished.IsZero() {
		t.FinishedAt = metav1.NewTime(x.Finished).Rfc3339Copy()
	}
	return t
}

// previous is the newest ended attempt before x.
func previous(all []Container, x *Container) *Container {
	return latest(all, x.Name, func(y *Container) bool {
		return y.ID != x.ID && y.State == Exited && newerThan(x, y)
	})
}

// completeInits: an init container that is gone, while ordinary ones exist, must have succeeded.
func completeInits(in StatusInput, out []corev1.ContainerStatus) {
	ran := false
	for i := range in.Pod.Spec.Containers {
		ran = ran || latest(in.Containers, in.Pod.Spec.Containers[i].Name,
			func(x *Container) bool { return x.Boot == in.Boot }) != nil
	}
	if !ran {
		return
	}
	for i := range out {
		if out[i].State.Waiting != nil && Latest(in.Containers, out[i].Name) == nil {
			out[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: ReasonCompleted,
				Message: "Unable to get init container status from container runtime and pod has been " +
					"initialized, treat it as exited normally",
			}}
		}
	}
}

func mountStatuses(spec *corev1.Container) []corev1.VolumeMountStatus {
	var out []corev1.VolumeMountStatus
	for i := range spec.VolumeMounts {
		m := &spec.VolumeMounts[i]
		st := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			st.RecursiveReadOnly = &mode
		}
		out = append(out, st)
	}
	return out
}
