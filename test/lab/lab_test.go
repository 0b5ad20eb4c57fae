package lab

import (
	"strings"
	"testing"
	"time"
)

func TestStretch(t *testing.T) {
	for _, tc := range []struct {
		capacity, others time.Duration
		want             float64
	}{
		{2 * time.Second, 0, 1},
		{2 * time.Second, -time.Second, 1}, // clocks of the kernel disagree a little
		{2 * time.Second, time.Second, 2},
		{2 * time.Second, 1900 * time.Millisecond, mostNoise},
		{2 * time.Second, 3 * time.Second, mostNoise},
		{0, time.Second, 1},
	} {
		if got := stretch(tc.capacity, tc.others); got != tc.want {
			t.Errorf("stretch(%s, %s) = %g, want %g", tc.capacity, tc.others, got, tc.want)
		}
	}
}

func TestTwice(t *testing.T) {
	at := func(host, ns, pod, uid string) Container {
		return Container{Host: host, Name: "c", Namespace: ns, Pod: pod, UID: uid}
	}
	for name, tc := range map[string]struct {
		containers []Container
		want       int
	}{
		"once each":              {[]Container{at("h1", "n", "db-0", "a"), at("h2", "n", "db-1", "b")}, 0},
		"on two hosts":           {[]Container{at("h1", "n", "db-0", "a"), at("h2", "n", "db-0", "a")}, 1},
		"replaced too early":     {[]Container{at("h1", "n", "db-0", "a"), at("h1", "n", "db-0", "b")}, 1},
		"another namespace's":    {[]Container{at("h1", "n", "db-0", "a"), at("h2", "m", "db-0", "a")}, 0},
		"a pod's two containers": {[]Container{at("h1", "n", "db-0", "a"), {Host: "h1", Name: "d", Namespace: "n", Pod: "db-0", UID: "a"}}, 0},
	} {
		if got := Twice(tc.containers, "n"); len(got) != tc.want {
			t.Errorf("%s: %q, want %d", name, got, tc.want)
		}
	}
}

func TestCompare(t *testing.T) {
	base := everything{"pods": "7", "pods n/a": "x"}
	for name, tc := range map[string]struct {
		other everything
		want  string
	}{
		"same":             {everything{"pods": "7", "pods n/a": "x"}, ""},
		"one is missing":   {everything{"pods": "7"}, "pods n/a is missing on h2"},
		"one too many":     {everything{"pods": "7", "pods n/a": "x", "pods n/b": "y"}, "pods n/b is missing on h1, not on h2"},
		"another revision": {everything{"pods": "8", "pods n/a": "x"}, "pods: on h1 7, on h2 8"},
	} {
		got := strings.Join(compare("h1", map[string]everything{"h1": base, "h2": tc.other}), "\n")
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestGap(t *testing.T) {
	zero := time.Unix(1000, 0)
	second := func(n float64) time.Time { return zero.Add(time.Duration(n * float64(time.Second))) }
	l := &Load{acks: []Ack{{At: second(1), Via: "h1"}, {At: second(5), Via: "h1"}, {At: second(2), Via: "h2"}}}
	for _, tc := range []struct {
		host     string
		from, to float64
		want     time.Duration
	}{
		{"", 0, 6, 3 * time.Second},
		{"h1", 0, 6, 4 * time.Second},
		{"h2", 0, 6, 4 * time.Second}, // until the end, too
		{"h3", 0, 6, 6 * time.Second},
		{"h1", 3, 6, 2 * time.Second},
	} {
		if got := l.Gap(tc.host, second(tc.from), second(tc.to)); got != tc.want {
			t.Errorf("Gap(%q, %g, %g) = %s, want %s", tc.host, tc.from, tc.to, got, tc.want)
		}
	}
}

func TestMonitorName(t *testing.T) {
	m := monitorName.FindStringSubmatch("k8s_c_my-ns_db-0.x_8e0e6629-914f-463b-8d85-e6dc6dde3f3c_12")
	if m == nil || m[2] != "my-ns" || m[3] != "db-0.x" || m[4] != "8e0e6629-914f-463b-8d85-e6dc6dde3f3c" {
		t.Errorf("%q", m)
	}
}

func TestJoinCommand(t *testing.T) {
	words, err := JoinCommand("Swarm x begins with node h1. On every machine:\n\n  podman-swarm join 10.77.0.1:7946 --token pswt1.a\n\n")
	if err != nil || strings.Join(words, " ") != "join 10.77.0.1:7946 --token pswt1.a" {
		t.Errorf("%q %v", words, err)
	}
	if _, err := JoinCommand("Swarm x begins with node h1.\n"); err == nil {
		t.Error("a command was found where none is")
	}
}
