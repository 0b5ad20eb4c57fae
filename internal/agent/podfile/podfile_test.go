package podfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(f func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "shop"},
		Spec:       corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst},
	}
	if f != nil {
		f(p)
	}
	return p
}

func TestResolv(t *testing.T) {
	node := "# made by dhcp\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch lan. .\noptions ndots:1 edns0\n"
	two := "2"
	for _, tc := range []struct {
		name    string
		pod     *corev1.Pod
		cluster []string
		want    string
		remark  string
	}{
		{
			name: "cluster first without cluster DNS", pod: pod(nil),
			want: "search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:1 edns0\n",
		},
		{
			name: "cluster first", pod: pod(nil), cluster: []string{"10.43.0.10"},
			want: "search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.43.0.10\noptions ndots:5\n",
		},
		{
			name: "host network falls back to the node's", pod: pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), cluster: []string{"10.43.0.10"},
			want: "search lan\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:1 edns0\n",
		},
		{
			name: "host network with cluster DNS", cluster: []string{"10.43.0.10"},
			pod:  pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true; p.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet }),
			want: "search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.43.0.10\noptions ndots:5\n",
		},
		{
			name: "default", pod: pod(func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSDefault }), cluster: []string{"10.43.0.10"},
			want: "search lan\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:1 edns0\n",
		},
		{name: "none with config", pod: pod(func(p *corev1.Pod) {
			p.Spec.DNSPolicy = corev1.DNSNone
			p.Spec.DNSConfig = &corev1.PodDNSConfig{
				Nameservers: []string{"1.2.3.4"}, Searches: []string{"a.b"},
				Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}},
			}
		}), want: "search a.b\nnameserver 1.2.3.4\noptions ndots:2 edns0\n"},
		{
			name: "config overrides an option and repeats a server", pod: pod(func(p *corev1.Pod) {
				p.Spec.DNSConfig = &corev1.PodDNSConfig{
					Nameservers: []string{"10.43.0.10"},
					Options:     []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}},
				}
			}), cluster: []string{"10.43.0.10"},
			want: "search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.43.0.10\noptions ndots:2\n",
		},
		{name: "four servers", pod: pod(func(p *corev1.Pod) {
			p.Spec.DNSPolicy = corev1.DNSNone
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"}}
		}), want: "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\n", remark: "Nameserver limits were exceeded"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, remark := Resolv(tc.pod, DNS{NodeFile: []byte(node), ClusterServers: tc.cluster, ClusterDomain: "cluster.local"})
			if d := cmp.Diff(tc.want, string(got)); d != "" {
				t.Error(d)
			}
			if !strings.HasPrefix(remark, tc.remark) || (remark != "") != (tc.remark != "") {
				t.Errorf("remark %q", remark)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	p := pod(func(p *corev1.Pod) {
		p.Spec.Hostname, p.Spec.Subdomain = "db", "data"
		p.Spec.HostAliases = []corev1.HostAlias{{IP: "9.9.9.9", Hostnames: []string{"a", "b"}}}
	})
	got := string(Hosts(p, []string{"10.244.0.5"}, "cluster.local", nil))
	for _, want := range []string{
		managedHeader, "10.244.0.5\tdb.data.shop.svc.cluster.local\tdb\n",
		"\n# Entries added by HostAliases.\n9.9.9.9\ta\tb\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	p.Spec.HostNetwork = true
	got = string(Hosts(p, []string{"192.0.2.1"}, "cluster.local", []byte("127.0.0.1 me\n")))
	if want := hostHeader + "127.0.0.1 me\n\n# Entries added by HostAliases.\n9.9.9.9\ta\tb\n"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

func TestUTSName(t *testing.T) {
	yes := true
	long := strings.Repeat("x", 62) + "-y"
	for _, tc := range []struct {
		pod  *corev1.Pod
		want string
		bad  bool
	}{
		{pod: pod(nil), want: "web-1"},
		{pod: pod(func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "h", "s" }), want: "h"},
		{pod: pod(func(p *corev1.Pod) { p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "s", &yes }), want: "web-1.s.shop.svc.cluster.local"},
		{pod: pod(func(p *corev1.Pod) { p.Name = long }), want: strings.Repeat("x", 62)},
		{pod: pod(func(p *corev1.Pod) { p.Name, p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = long, "s", &yes }), bad: true},
		{pod: pod(func(p *corev1.Pod) { o := "over.ride"; p.Spec.HostnameOverride, p.Spec.Subdomain = &o, "s" }), want: "over.ride"},
	} {
		got, err := UTSName(tc.pod, "cluster.local")
		if got != tc.want || (err != nil) != tc.bad {
			t.Errorf("%s: got %q, %v; want %q", tc.pod.Name, got, err, tc.want)
		}
	}
}

func TestTermination(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	log := write("log", "2026-01-01T00:00:00.0Z stdout F one\n2026-01-01T00:00:00.0Z stderr P tw\n2026-01-01T00:00:00.0Z stderr F o\n")
	fallback := &corev1.Container{TerminationMessagePath: "/t", TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError}
	file := &corev1.Container{TerminationMessagePath: "/t", TerminationMessagePolicy: corev1.TerminationMessageReadFile}
	for _, tc := range []struct {
		name   string
		c      *corev1.Container
		file   string
		failed bool
		want   string
	}{
		{"file", file, write("a", "bye"), true, "bye"},
		{"long file keeps its end", file, write("b", strings.Repeat("a", 5000)+"end"), true, strings.Repeat("a", 4093) + "end"},
		{"empty file, no fallback", file, write("c", ""), true, ""},
		{"empty file, fallback", fallback, write("d", ""), true, "one\ntwo\n"},
		{"success never falls back", fallback, write("e", ""), false, ""},
		{"file wins over log", fallback, write("f", "said"), true, "said"},
		{"no file at all", fallback, filepath.Join(dir, "none"), true, "one\ntwo\n"},
	} {
		if got := Termination(tc.c, tc.file, log, tc.failed); got != tc.want {
			t.Errorf("%s: got %q want %q", tc.name, got, tc.want)
		}
	}
}
