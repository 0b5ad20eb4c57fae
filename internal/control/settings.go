package control

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/pkg/controller/apis/config"
)

const (
	// busyWorkers serve what users wait for, one object each at a time. Creating the pods of one
	// ReplicaSet is parallel in itself.
	busyWorkers = 5
	// workers serve everything else. Upstream's 5 to 20 are for clusters a hundred times larger;
	// an idle worker is a goroutine and its stack.
	workers = 2
	// finishedPods is how many finished pods are kept before the oldest are deleted. Upstream's
	// 12,500 would cost more memory than everything else here.
	finishedPods = 1000
)

// settings returns upstream's defaults with this cluster's sizes and keys.
func settings(c Config) (config.KubeControllerManagerConfiguration, error) {
	s, err := options.NewDefaultComponentConfig()
	if err != nil {
		return s, fmt.Errorf("upstream's default configuration: %w", err)
	}
	s.SAController.RootCAFile = c.CAFile
	s.SAController.ServiceAccountKeyFile = c.SAKeyFile
	s.CSRSigningController.ClusterSigningCertFile = c.IssuerFile
	s.CSRSigningController.ClusterSigningKeyFile = c.CAKeyFile
	s.PodGCController.TerminatedPodGCThreshold = finishedPods

	s.DeploymentController.ConcurrentDeploymentSyncs = busyWorkers
	s.ReplicaSetController.ConcurrentRSSyncs = busyWorkers
	s.EndpointSliceController.ConcurrentServiceEndpointSyncs = busyWorkers
	s.JobController.ConcurrentJobSyncs = busyWorkers
	s.GarbageCollectorController.ConcurrentGCSyncs = busyWorkers
	s.NamespaceController.ConcurrentNamespaceSyncs = busyWorkers

	for _, n := range []*int32{
		&s.CronJobController.ConcurrentCronJobSyncs,
		&s.DaemonSetController.ConcurrentDaemonSetSyncs,
		&s.DeviceTaintEvictionController.ConcurrentSyncs,
		&s.DisruptionController.ConcurrentDisruptionSyncs,
		&s.EndpointController.ConcurrentEndpointSyncs,
		&s.EndpointSliceMirroringController.MirroringConcurrentServiceEndpointSyncs,
		&s.EphemeralVolumeController.ConcurrentEphemeralVolumeSyncs,
		&s.HPAController.ConcurrentHorizontalPodAutoscalerSyncs,
		&s.ReplicationController.ConcurrentRCSyncs,
		&s.ResourceClaimController.ConcurrentSyncs,
		&s.ResourceQuotaController.ConcurrentResourceQuotaSyncs,
		&s.SAController.ConcurrentSATokenSyncs,
		&s.StatefulSetController.ConcurrentStatefulSetSyncs,
		&s.TTLAfterFinishedController.ConcurrentTTLSyncs,
		&s.ValidatingAdmissionPolicyStatusController.ConcurrentPolicySyncs,
	} {
		*n = workers
	}
	return s, nil
}

// withoutManagedFields drops what no controller reads and what is often half of an object.
func withoutManagedFields(obj any) (any, error) {
	if object, err := meta.Accessor(obj); err == nil && object.GetManagedFields() != nil {
		object.SetManagedFields(nil)
	}
	return obj, nil
}
