package duplicate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PendingAnnotation on a Service holds the spec that it gets once its old addresses are released.
const PendingAnnotation = "podman-swarm.io/pending-address"

// placeholder is the external name of a Service while its cluster IP is released: one that cannot
// resolve.
const placeholder = "address-changes.invalid"

// A Move is a Service that must give up addresses.
type Move struct {
	Service *corev1.Service
	// ClusterIPs and NodePorts are those that older Services keep, in order, and Keepers are these.
	ClusterIPs []string
	NodePorts  []int32
	Keepers    map[string]*corev1.Service // by cluster IP
}

// Services returns the moves that leave every address with one Service: the oldest.
func Services(all []*corev1.Service) []Move {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b *corev1.Service) int {
		return cmp.Or(-compareBool(first(a), first(b)), older(&a.ObjectMeta, &b.ObjectMeta))
	})
	ips, ports := map[string]*corev1.Service{}, map[int32]*corev1.Service{}
	var moves []Move
	for _, s := range sorted {
		m := Move{Service: s, Keepers: map[string]*corev1.Service{}}
		for _, ip := range clusterIPs(&s.Spec) {
			if keeper := ips[ip]; keeper != nil {
				m.ClusterIPs, m.Keepers[ip] = append(m.ClusterIPs, ip), keeper
			} else {
				ips[ip] = s
			}
		}
		for _, port := range nodePorts(&s.Spec) {
			if keeper := ports[port]; keeper != nil && keeper != s {
				m.NodePorts = append(m.NodePorts, port)
			} else {
				ports[port] = s
			}
		}
		if len(m.ClusterIPs)+len(m.NodePorts) > 0 {
			moves = append(moves, m)
		}
	}
	return moves
}

// first: every pod is told the address of this one at its start.
func first(s *corev1.Service) bool {
	return s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes"
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// older orders objects by age; those of one second by UID, the same way everywhere.
func older(a, b *metav1.ObjectMeta) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
}

func clusterIPs(spec *corev1.ServiceSpec) []string {
	ips := spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{spec.ClusterIP}
	}
	return slices.DeleteFunc(slices.Clone(ips), func(ip string) bool { return ip == "" || ip == corev1.ClusterIPNone })
}

func nodePorts(spec *corev1.ServiceSpec) []int32 {
	var out []int32
	for _, p := range spec.Ports {
		out = append(out, p.NodePort)
	}
	out = append(out, spec.HealthCheckNodePort)
	return slices.DeleteFunc(out, func(p int32) bool { return p == 0 })
}

// Release returns the Service without the addresses it must give up, and with what it is to become.
func Release(m Move) (*corev1.Service, error) {
	next := m.Service.Spec.DeepCopy()
	if len(m.ClusterIPs) > 0 {
		next.ClusterIP, next.ClusterIPs = "", nil
	}
	for i := range next.Ports {
		if slices.Contains(m.NodePorts, next.Ports[i].NodePort) {
			next.Ports[i].NodePort = 0
		}
	}
	if slices.Contains(m.NodePorts, next.HealthCheckNodePort) {
		next.HealthCheckNodePort = 0
	}
	pending, err := json.Marshal(next)
	if err != nil {
		return nil, fmt.Errorf("encode what service %s/%s is to become: %w", m.Service.Namespace, m.Service.Name, err)
	}
	out := m.Service.DeepCopy()
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[PendingAnnotation] = string(pending)
	out.Spec = bare(&m.Service.Spec, len(m.ClusterIPs) > 0)
	return out, nil
}

// bare is the spec without node ports, and without cluster IPs when told so.
func bare(spec *corev1.ServiceSpec, nowhere bool) corev1.ServiceSpec {
	out := corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, Selector: spec.Selector, SessionAffinity: spec.SessionAffinity,
		SessionAffinityConfig: spec.SessionAffinityConfig, PublishNotReadyAddresses: spec.PublishNotReadyAddresses,
		InternalTrafficPolicy: spec.InternalTrafficPolicy, TrafficDistribution: spec.TrafficDistribution,
	}
	for _, p := range spec.Ports {
		p.NodePort = 0
		out.Ports = append(out.Ports, p)
	}
	if nowhere {
		out.Type, out.ExternalName, out.InternalTrafficPolicy = corev1.ServiceTypeExternalName, placeholder, nil
		return out
	}
	out.ClusterIP, out.ClusterIPs = spec.ClusterIP, spec.ClusterIPs
	out.IPFamilies, out.IPFamilyPolicy = spec.IPFamilies, spec.IPFamilyPolicy
	return out
}

// Restore returns the Service as it was, with fresh addresses for those it gave up; nil when it is none
// of those that wait for that. With all set no node port is asked for that it had.
func Restore(s *corev1.Service, all bool) (*corev1.Service, error) {
	pending, ok := s.Annotations[PendingAnnotation]
	if !ok {
		return nil, nil //nolint:nilnil // see above
	}
	out := s.DeepCopy()
	delete(out.Annotations, PendingAnnotation)
	out.Spec = corev1.ServiceSpec{}
	if err := json.Unmarshal([]byte(pending), &out.Spec); err != nil {
		return nil, fmt.Errorf("read annotation %s of service %s/%s: %w", PendingAnnotation, s.Namespace, s.Name, err)
	}
	if all {
		out.Spec.HealthCheckNodePort = 0
		for i := range out.Spec.Ports {
			out.Spec.Ports[i].NodePort = 0
		}
	}
	return out, nil
}
