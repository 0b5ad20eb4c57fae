package control

import (
	"slices"
	"strings"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
)

// A Decision says whether a controller of upstream's runs here, and if not, why.
type Decision struct {
	// Name is upstream's.
	Name string
	Runs bool
	// Reason is empty for a controller that runs.
	Reason string
}

// omitted returns the controllers that upstream runs by default and this cluster does not, each
// with its reason in the words of docs/compatibility.md.
func omitted() map[string]string {
	return map[string]string{
		names.NodeLifecycleController: "replaced: liveness comes from the nodes themselves, with no lease; " +
			"node-taint-controller, our own, sets the same taints",
		names.NodeIpamController: "replaced: a node takes its pod range when it joins",
		names.PersistentVolumeAttachDetachController: "no volume needs attaching: volumes are directories of the node that " +
			"runs the pod, and there are no CSI drivers",
	}
}

// Decisions returns one decision for every controller upstream knows, sorted by name. Apart from
// those omitted here, it follows upstream's defaults and the process's feature gates.
func Decisions() []Decision {
	reasons := omitted()
	var decisions []Decision
	for name, descriptor := range app.NewControllerDescriptors() {
		d := Decision{Name: name, Reason: reasons[name]}
		if d.Reason == "" {
			d.Reason = offUpstream(descriptor)
		}
		d.Runs = d.Reason == ""
		decisions = append(decisions, d)
	}
	slices.SortFunc(decisions, func(a, b Decision) int { return strings.Compare(a.Name, b.Name) })
	return decisions
}

// offUpstream tells why upstream would not run the controller either, or "" if it would.
func offUpstream(descriptor *app.ControllerDescriptor) string {
	if descriptor.IsDisabledByDefault() {
		return "off by default upstream"
	}
	for _, gate := range descriptor.GetRequiredFeatureGates() {
		if !utilfeature.DefaultFeatureGate.Enabled(gate) {
			return "off by default upstream: feature gate " + string(gate)
		}
	}
	return ""
}
