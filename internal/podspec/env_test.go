package podspec_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

func sources() podspec.Sources {
	notFound := func(kind, name string) error {
		return apierrors.NewNotFound(corev1.Resource(kind), name)
	}
	return podspec.Sources{
		ConfigMap: func(_, name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, notFound("configmaps", name)
			}
			return &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}}, nil
		},
		Secret: func(_, name string) (*corev1.Secret, error) {
			if name != "sec" {
				return nil, notFound("secrets", name)
			}
			return &corev1.Secret{Data: map[string][]byte{"pw": []byte("x=y z")}}, nil
		},
		Services:    map[string]string{"DB_SERVICE_HOST": "10.43.0.9", "A": "service"},
		PodIPs:      []string{"10.244.0.7", "fd00::7"},
		HostIPs:     []string{"192.0.2.1"},
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("3500m"), "memory": resource.MustParse("1Gi")},
	}
}

func ref[T any](v T) *T { return &v }

func from(s corev1.EnvVarSource) *corev1.EnvVarSource { return &s }

func TestEnvSources(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"app": "web", "tier": "a\"b"},
		Annotations: map[string]string{"example.com/Note": "n"},
	}}
	pod.Spec.NodeName, pod.Spec.ServiceAccountName = "n1", "robot"
	field := func(p string) *corev1.EnvVarSource {
		return from(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: p}})
	}
	res := func(r, div string) *corev1.EnvVarSource {
		s := &corev1.ResourceFieldSelector{Resource: r}
		if div != "" {
			s.Divisor = resource.MustParse(div)
		}
		return from(corev1.EnvVarSource{ResourceFieldRef: s})
	}
	cm := func(name, key string, optional bool) *corev1.EnvVarSource {
		return from(corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
		}})
	}
	sec := func(name, key string) *corev1.EnvVarSource {
		return from(corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key}})
	}
	limits := corev1.ResourceRequirements{
		Limits: corev1.ResourceList{"memory": resource.MustParse("100Mi")}, Requests: corev1.ResourceList{"cpu": resource.MustParse("250m")},
	}
	for _, tt := range []struct {
		name string
		env  []corev1.EnvVar
		from []corev1.EnvFromSource
		want []string // beside the services
		err  string
	}{
		{
			name: "value over service, later over earlier", env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)-$(DB_SERVICE_HOST)"}, {Name: "A", Value: "2"}},
			want: []string{"A=2", "B=1-10.43.0.9"},
		},
		{name: "empty value", env: []corev1.EnvVar{{Name: "E"}}, want: []string{"A=service", "E="}},
		{name: "fields", env: []corev1.EnvVar{
			{Name: "1", ValueFrom: field("metadata.labels['app']")},
			{Name: "2", ValueFrom: field("metadata.annotations['example.com/Note']")},
			{Name: "3", ValueFrom: field("metadata.labels")},
			{Name: "4", ValueFrom: field("status.podIPs")},
			{Name: "5", ValueFrom: field("status.podIP")},
			{Name: "6", ValueFrom: field("status.hostIP")},
			{Name: "7", ValueFrom: field("spec.nodeName")},
			{Name: "8", ValueFrom: field("spec.serviceAccountName")},
			{Name: "9", ValueFrom: field("metadata.uid")},
		}, want: []string{"1=web", "2=n", "3=app=\"web\"\ntier=\"a\\\"b\"", "4=10.244.0.7,fd00::7", "5=10.244.0.7", "6=192.0.2.1", "7=n1", "8=robot", "9=u", "A=service"}},
		{name: "resources", env: []corev1.EnvVar{
			{Name: "1", ValueFrom: res("limits.memory", "")},
			{Name: "2", ValueFrom: res("limits.memory", "1Mi")},
			{Name: "3", ValueFrom: res("limits.cpu", "")},
			{Name: "4", ValueFrom: res("requests.cpu", "1m")},
			{Name: "5", ValueFrom: res("requests.cpu", "")},
			{Name: "6", ValueFrom: res("requests.memory", "")},
		}, want: []string{"1=104857600", "2=100", "3=4", "4=250", "5=1", "6=0", "A=service"}},
		{
			name: "keys", env: []corev1.EnvVar{{Name: "1", ValueFrom: cm("cm", "a", false)}, {Name: "2", ValueFrom: sec("sec", "pw")}, {Name: "3", ValueFrom: cm("no", "a", true)}, {Name: "4", ValueFrom: cm("cm", "no", true)}},
			want: []string{"1=1", "2=x=y z", "A=service"},
		},
		{name: "all of one, with a prefix", from: []corev1.EnvFromSource{
			{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Optional: ref(true)}},
		}, env: []corev1.EnvVar{{Name: "P_a", Value: "own $(P_b)"}}, want: []string{"A=service", "P_a=own 2", "P_b=2", "pw=x=y z"}},
		{name: "no such map", env: []corev1.EnvVar{{Name: "1", ValueFrom: cm("no", "a", false)}}, err: `configmaps "no" not found`},
		{name: "no such key", env: []corev1.EnvVar{{Name: "1", ValueFrom: cm("cm", "no", false)}}, err: "couldn't find key no in ConfigMap ns/cm"},
		{name: "no such secret key", env: []corev1.EnvVar{{Name: "1", ValueFrom: sec("sec", "no")}}, err: "couldn't find key no in Secret ns/sec"},
		{name: "no such field", env: []corev1.EnvVar{{Name: "1", ValueFrom: field("spec.x")}}, err: "unsupported fieldPath: spec.x"},
		{name: "bad subscript", env: []corev1.EnvVar{{Name: "1", ValueFrom: field("spec['x']")}}, err: `fieldPath "spec['x']" does not support subscript`},
		{name: "no such resource", env: []corev1.EnvVar{{Name: "1", ValueFrom: res("limits.gpu", "")}}, err: "unsupported container resource : limits.gpu"},
		{name: "NUL", env: []corev1.EnvVar{{Name: "1", Value: "a\x00b"}}, err: `environment variable "1" contains a NUL byte`},
	} {
		c := &corev1.Container{Name: "c", Env: tt.env, EnvFrom: tt.from, Resources: limits}
		got, err := podspec.Env(pod, c, sources())
		if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
			continue
		}
		got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "DB_") })
		if err == nil && !slices.Equal(got, tt.want) {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func TestEnvSourceFails(t *testing.T) {
	src := sources()
	broken := errors.New("not yet known")
	src.Secret = func(_, _ string) (*corev1.Secret, error) { return nil, broken }
	optional := &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Optional: ref(true)}
	_, err := podspec.Env(&corev1.Pod{}, &corev1.Container{EnvFrom: []corev1.EnvFromSource{{SecretRef: optional}}}, src)
	if !errors.Is(err, broken) {
		t.Errorf("an optional secret that cannot be read counts as absent: %v", err)
	}
}

// Expansion, against Kubernetes' own documented cases and as a property.
func TestExpansion(t *testing.T) {
	expand := func(s string) string {
		env := []corev1.EnvVar{{Name: "A", Value: "a$$(B)"}, {Name: "E", Value: s}}
		if s == "" {
			return ""
		}
		got, err := podspec.Env(&corev1.Pod{}, &corev1.Container{Env: env}, podspec.Sources{})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(got[1], "E=")
	}
	for in, want := range map[string]string{
		"$(A)": "a$(B)", "$$(A)": "$(A)", "$$$(A)": "$a$(B)", "$(NO)": "$(NO)", "$(A": "$(A", "$": "$", "$$": "$", "a$": "a$",
		"$A": "$A", "$(A)$(A)": "a$(B)a$(B)", "($(A))": "(a$(B))", "$()": "$()", "$((A))": "$((A))", "$é": "$é", "$$$$": "$$", "$(A$(A)": "$(A$(A)",
	} {
		if got := expand(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.StringMatching(`[a-z(){} ]{1,20}`).Draw(t, "plain")
		if got := expand(plain); got != plain {
			t.Fatalf("%q became %q", plain, got)
		}
		if got := expand(strings.ReplaceAll("$("+plain, "$", "$$")); got != "$("+plain {
			t.Fatalf("escaped %q became %q", "$("+plain, got)
		}
	})
}

func TestServiceEnv(t *testing.T) {
	svc := func(ns, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	}
	list := []*corev1.Service{
		svc("default", "kubernetes", "10.43.0.1", corev1.ServicePort{Name: "https", Port: 443, Protocol: "TCP"}),
		svc("ns", "my-db", "10.43.0.9", corev1.ServicePort{Port: 53, Protocol: "UDP"}),
		svc("ns", "headless", "None", corev1.ServicePort{Port: 1}),
		svc("other", "far", "10.43.0.8", corev1.ServicePort{Port: 1}),
	}
	got := podspec.ServiceEnv("ns", true, list)
	want := map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.43.0.1", "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443",
		"KUBERNETES_PORT": "tcp://10.43.0.1:443", "KUBERNETES_PORT_443_TCP": "tcp://10.43.0.1:443", "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
		"KUBERNETES_PORT_443_TCP_PORT": "443", "KUBERNETES_PORT_443_TCP_ADDR": "10.43.0.1",
		"MY_DB_SERVICE_HOST": "10.43.0.9", "MY_DB_SERVICE_PORT": "53", "MY_DB_PORT": "udp://10.43.0.9:53", "MY_DB_PORT_53_UDP": "udp://10.43.0.9:53",
		"MY_DB_PORT_53_UDP_PROTO": "udp", "MY_DB_PORT_53_UDP_PORT": "53", "MY_DB_PORT_53_UDP_ADDR": "10.43.0.9",
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s=%q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d variables, want %d: %v", len(got), len(want), got)
	}
	if got := podspec.ServiceEnv("ns", false, list); got["MY_DB_SERVICE_HOST"] != "" || got["KUBERNETES_SERVICE_HOST"] == "" {
		t.Errorf("without links: %v", got)
	}
}

func TestIdentify(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	c := &corev1.Container{Name: "c", Image: "i", Command: []string{"x"}}
	spec, _, err := podspec.Container(podspec.Input{Pod: pod, Container: c, Init: true, Attempt: 3, Host: podspec.Facts{Node: "n", DataDir: "/d", BootID: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	want := podspec.Ident{Node: "n", DataDir: "/d", BootID: "b", Namespace: "ns", Pod: "p", UID: "u", Container: "c", Hash: podspec.Hash(c), Attempt: 3, Init: true}
	if got, ok := podspec.Identify(spec.Labels); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := podspec.Identify(map[string]string{"io.kubernetes.pod.uid": "u"}); ok {
		t.Error("somebody else's container is ours")
	}
	other := *c
	other.Image = "j"
	if podspec.Hash(&other) == podspec.Hash(c) {
		t.Error("another image has the same hash")
	}
	other = *c
	other.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1")}
	if podspec.Hash(&other) != podspec.Hash(c) {
		t.Error("a resize changes the hash")
	}
}
