package duplicate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func meta(name string, born int) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "default", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(time.Unix(int64(1000+born), 0)),
	}
}

func service(name string, born int, ip string, ports ...int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: meta(name, born), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: ip}}
	if ip != "" {
		s.Spec.ClusterIPs = []string{ip}
	}
	for i, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(80 + i), NodePort: p})
	}
	return s
}

func TestServices(t *testing.T) {
	health := service("health", 9, "10.43.0.9")
	health.Spec.HealthCheckNodePort = 30001
	for name, tt := range map[string]struct {
		have []*corev1.Service
		want string
	}{
		"none":             {nil, ""},
		"all different":    {[]*corev1.Service{service("a", 1, "10.43.0.1", 30001), service("b", 2, "10.43.0.2", 30002)}, ""},
		"headless":         {[]*corev1.Service{service("a", 1, "None"), service("b", 2, "None")}, ""},
		"no address":       {[]*corev1.Service{service("a", 1, ""), service("b", 2, "")}, ""},
		"one address":      {[]*corev1.Service{service("b", 2, "10.43.0.1"), service("a", 1, "10.43.0.1")}, "b:10.43.0.1<a"},
		"of one second":    {[]*corev1.Service{service("b", 1, "10.43.0.1"), service("a", 1, "10.43.0.1")}, "b:10.43.0.1<a"},
		"three of one":     {[]*corev1.Service{service("c", 3, "10.43.0.1"), service("b", 2, "10.43.0.1"), service("a", 1, "10.43.0.1")}, "b:10.43.0.1<a c:10.43.0.1<a"},
		"one port":         {[]*corev1.Service{service("a", 1, "10.43.0.1", 30001), service("b", 2, "10.43.0.2", 30002, 30001)}, "b:30001"},
		"twice in one":     {[]*corev1.Service{service("a", 1, "10.43.0.1", 30001, 30001)}, ""}, // other protocols
		"health check":     {[]*corev1.Service{service("a", 1, "10.43.0.1", 30001), health}, "health:30001"},
		"both":             {[]*corev1.Service{service("a", 1, "10.43.0.1", 30001), service("b", 2, "10.43.0.1", 30001)}, "b:10.43.0.1<a:30001"},
		"kubernetes stays": {[]*corev1.Service{service("a", 1, "10.43.0.1"), service("kubernetes", 2, "10.43.0.1")}, "a:10.43.0.1<kubernetes"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, m := range Services(tt.have) {
				line := m.Service.Name
				for _, ip := range m.ClusterIPs {
					line += ":" + ip + "<" + m.Keepers[ip].Name
				}
				for _, p := range m.NodePorts {
					line += fmt.Sprint(":", p)
				}
				got = append(got, line)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

// After every move is made nothing is left to move, whatever the order in which Services are listed.
func TestServicesSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []*corev1.Service
		for i := range rapid.IntRange(0, 8).Draw(t, "services") {
			ip := fmt.Sprintf("10.43.0.%d", rapid.IntRange(2, 4).Draw(t, "ip"))
			all = append(all, service(fmt.Sprint("s", i), rapid.IntRange(0, 3).Draw(t, "age"), ip, rapid.Int32Range(30000, 30003).Draw(t, "port")))
		}
		moves := Services(all)
		names := func(moves []Move) (out []string) {
			for _, m := range moves {
				out = append(out, m.Service.Name)
			}
			return out
		}
		if again := names(Services(rapid.Permutation(all).Draw(t, "order"))); !slices.Equal(names(moves), again) {
			t.Fatalf("%v or %v, by the order of the list", names(moves), again)
		}
		for _, m := range moves {
			next, err := Release(m)
			if err != nil {
				t.Fatal(err)
			}
			*m.Service = *next
		}
		if left := Services(all); len(left) != 0 {
			t.Fatalf("left to move: %v", names(left))
		}
	})
}

func TestReleaseAndRestore(t *testing.T) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	full := service("a", 2, "10.43.0.1", 30001, 30002)
	full.Labels, full.Annotations = map[string]string{"l": "1"}, map[string]string{"x": "y"}
	full.Spec.Selector, full.Spec.InternalTrafficPolicy = map[string]string{"app": "a"}, &local
	full.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	keeper := service("k", 1, "10.43.0.1")
	for name, tt := range map[string]struct {
		move    Move
		between corev1.ServiceType
		address string
		ports   []int32
	}{
		"cluster IP":    {Move{Service: full, ClusterIPs: []string{"10.43.0.1"}, Keepers: map[string]*corev1.Service{"10.43.0.1": keeper}}, corev1.ServiceTypeExternalName, "", []int32{30001, 30002}},
		"one node port": {Move{Service: full, NodePorts: []int32{30002}}, corev1.ServiceTypeClusterIP, "10.43.0.1", []int32{30001, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			before := full.DeepCopy()
			released, err := Release(tt.move)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, full); diff != "" {
				t.Errorf("the argument was changed:\n%s", diff)
			}
			if released.Spec.Type != tt.between || released.Spec.ClusterIP != tt.address || len(nodePorts(&released.Spec)) != 0 {
				t.Errorf("released: %+v", released.Spec)
			}
			if released.UID != full.UID || released.Spec.Selector["app"] != "a" {
				t.Error("released is another Service")
			}
			got, err := Restore(released, false)
			if err != nil {
				t.Fatal(err)
			}
			want := full.DeepCopy()
			if tt.address == "" {
				want.Spec.ClusterIP, want.Spec.ClusterIPs = "", nil
			}
			for i := range want.Spec.Ports {
				want.Spec.Ports[i].NodePort = tt.ports[i]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("restored (-want +got):\n%s", diff)
			}
			if got, err = Restore(released, true); err != nil || len(nodePorts(&got.Spec)) != 0 {
				t.Errorf("restored with all ports fresh: %v, %v", got, err)
			}
		})
	}
	if got, err := Restore(full, false); got != nil || err != nil {
		t.Errorf("a Service that waits for nothing: %v, %v", got, err)
	}
	full.Annotations[PendingAnnotation] = "{"
	if _, err := Restore(full, false); err == nil || !strings.Contains(err.Error(), "default/a") {
		t.Errorf("a broken annotation: %v", err)
	}
}

func node(name string, born int, cidr string, conditions ...corev1.NodeCondition) *corev1.Node {
	return &corev1.Node{ObjectMeta: meta(name, born), Spec: corev1.NodeSpec{PodCIDR: cidr}, Status: corev1.NodeStatus{Conditions: conditions}}
}

func TestRanges(t *testing.T) {
	got := Ranges([]*corev1.Node{
		node("n4", 4, "10.244.2.0/24"), node("n2", 2, "10.244.2.0/24"), node("n1", 1, "10.244.1.0/24"),
		node("n5", 5, "10.244.0.0/16"), node("n6", 6, ""), node("n7", 7, ""), node("n8", 8, "10.245.0.0/24"),
	})
	if len(got) != 2 || !strings.Contains(got["n4"], "10.244.2.0/24 is also that of node n2") || !strings.Contains(got["n5"], "n1") {
		t.Errorf("got %v", got)
	}
}

func TestCondition(t *testing.T) {
	now, before := metav1.NewTime(time.Unix(2000, 0)), metav1.NewTime(time.Unix(1000, 0))
	wrong := corev1.NodeCondition{
		Type: PodRangeConflict, Status: corev1.ConditionTrue, Reason: "RangeTaken", Message: "m", LastHeartbeatTime: before, LastTransitionTime: before,
	}
	if c := Condition(node("n", 1, ""), "", now); c != nil {
		t.Errorf("nothing ever wrong: %v", c)
	}
	if c := Condition(node("n", 1, ""), "m", now); c == nil || c.Status != corev1.ConditionTrue || c.Message != "m" || c.LastTransitionTime != now {
		t.Errorf("wrong now: %v", c)
	}
	if c := Condition(node("n", 1, "", wrong), "m", now); c != nil {
		t.Errorf("said already: %v", c)
	}
	if c := Condition(node("n", 1, "", wrong), "other", now); c == nil || c.LastTransitionTime != before {
		t.Errorf("other words: %v", c)
	}
	if c := Condition(node("n", 1, "", wrong), "", now); c == nil || c.Status != corev1.ConditionFalse || c.LastTransitionTime != now {
		t.Errorf("right again: %v", c)
	}
}
