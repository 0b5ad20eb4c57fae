package image

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

type fake struct {
	local map[string]bool
	fail  error
	auths []string
}

func (f *fake) Image(_ context.Context, ref string) (podman.Image, error) {
	if !f.local[ref] {
		return podman.Image{}, podman.ErrNotFound
	}
	return podman.Image{ID: "id-" + ref, Size: 7}, nil
}

func (f *fake) Pull(_ context.Context, ref string, auth *podman.Auth) (string, error) {
	user := "nobody"
	if auth != nil {
		user = auth.Username
	}
	f.auths = append(f.auths, user)
	if f.fail != nil {
		return "", f.fail
	}
	f.local[ref] = true
	return ref, nil
}

type bench struct {
	*Images
	runtime *fake
	now     time.Time
	events  []string
	secrets []corev1.Secret
}

func newBench(local ...string) *bench {
	b := &bench{runtime: &fake{local: map[string]bool{}}, now: time.Unix(1000, 0)}
	for _, l := range local {
		b.runtime.local[l] = true
	}
	b.Images = New(b.runtime, func() time.Time { return b.now })
	return b
}

func (b *bench) ensure(ref string, policy corev1.PullPolicy) (string, string) {
	b.events = nil
	img, err := b.Ensure(context.Background(), Request{
		Pod:       &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}},
		Container: &corev1.Container{Image: ref, ImagePullPolicy: policy},
		Secrets:   func() []corev1.Secret { return b.secrets },
		Record:    func(kind, reason, message string) { b.events = append(b.events, kind+" "+reason+" "+message) },
	})
	var f *NoImageError
	switch {
	case errors.As(err, &f):
		return "", f.Reason
	case err != nil:
		return "", err.Error()
	}
	return img.ID, ""
}

func TestPolicies(t *testing.T) {
	for _, tc := range []struct {
		ref    string
		policy corev1.PullPolicy
		local  bool
		id     string
		reason string
		pulled bool
	}{
		{"app:1", corev1.PullIfNotPresent, true, "id-app:1", "", false},
		{"app:1", corev1.PullIfNotPresent, false, "id-app:1", "", true},
		{"app:1", corev1.PullAlways, true, "id-app:1", "", true},
		{"app:1", corev1.PullNever, true, "id-app:1", "", false},
		{"app:1", corev1.PullNever, false, "", ErrImageNeverPull, false},
		{"localhost/app:1", corev1.PullAlways, true, "id-localhost/app:1", "", false},
		{"localhost/app:1", corev1.PullAlways, false, "", ErrImagePull, false},
		{"Not An Image", corev1.PullAlways, false, "", InvalidImageName, false},
	} {
		b := newBench()
		if tc.local {
			b.runtime.local[tc.ref] = true
		}
		id, reason := b.ensure(tc.ref, tc.policy)
		if id != tc.id || reason != tc.reason || (len(b.runtime.auths) > 0) != tc.pulled {
			t.Errorf("%s %s local=%v: got %q %q pulls %v", tc.ref, tc.policy, tc.local, id, reason, b.runtime.auths)
		}
	}
}

// A failed pull is ErrImagePull, then ImagePullBackOff with the registry's words until the next try.
func TestBackoff(t *testing.T) {
	b := newBench()
	b.runtime.fail = errors.New("manifest unknown:\n  no such tag")
	var got []string
	for range 40 {
		_, reason := b.ensure("app:1", corev1.PullIfNotPresent)
		got = append(got, reason)
		b.now = b.now.Add(time.Second)
	}
	tries := len(b.runtime.auths)
	if tries != 3 { // at 0, 10 and 30 s
		t.Errorf("%d tries in 40 s", tries)
	}
	if got[0] != ErrImagePull || got[1] != ImagePullBackOff || got[10] != ErrImagePull || got[11] != ImagePullBackOff {
		t.Error(got)
	}
	b.ensure("app:1", corev1.PullIfNotPresent)
	b.runtime.fail = nil
	b.now = b.now.Add(time.Minute)
	if id, reason := b.ensure("app:1", corev1.PullIfNotPresent); id == "" {
		t.Error(reason)
	}
	want := []string{
		`Normal Pulling Pulling image "app:1"`,
		`Normal Pulled Successfully pulled image "app:1" in 0s (0s including waiting). Image size: 7 bytes.`,
	}
	if d := cmp.Diff(want, b.events); d != "" {
		t.Error(d)
	}
	if len(b.backoff) != 0 {
		t.Error("the back-off is remembered after success")
	}
}

func TestFailureWords(t *testing.T) {
	b := newBench()
	b.runtime.fail = errors.New("unauthorized: go away")
	b.ensure("app:1", corev1.PullAlways)
	want := []string{
		`Normal Pulling Pulling image "app:1"`,
		`Warning Failed Failed to pull image "app:1": unauthorized: go away`, `Warning Failed Error: ErrImagePull`,
	}
	if d := cmp.Diff(want, b.events); d != "" {
		t.Error(d)
	}
	b.ensure("app:1", corev1.PullAlways)
	want = []string{`Normal BackOff Back-off pulling image "app:1"`, `Warning Failed Error: ImagePullBackOff`}
	if d := cmp.Diff(want, b.events); d != "" {
		t.Error(d)
	}
	b.Forget("u")
	if len(b.backoff) != 0 {
		t.Error("a forgotten pod is remembered")
	}
}

func secret(kind corev1.SecretType, data string) corev1.Secret {
	key := corev1.DockerConfigJsonKey
	if kind == corev1.SecretTypeDockercfg {
		key = corev1.DockerConfigKey
	}
	return corev1.Secret{Type: kind, Data: map[string][]byte{key: []byte(data)}}
}

func TestCredentials(t *testing.T) {
	secrets := []corev1.Secret{
		secret(corev1.SecretTypeDockerConfigJson, `{"auths":{
			"https://index.docker.io/v1/":{"auth":"aHViOnB3"},
			"reg.example:5000":{"username":"port","password":"p"},
			"reg.example/team":{"username":"team","password":"p"},
			"reg.example":{"username":"host","password":"p"},
			"*.wild.example":{"username":"wild","password":"p"},
			"broken.example":{"auth":"%%%"}}}`),
		secret(corev1.SecretTypeDockercfg, `{"old.example":{"username":"old","password":"p"}}`),
		secret(corev1.SecretTypeDockerConfigJson, `not json`),
		{Type: corev1.SecretTypeOpaque},
	}
	for ref, want := range map[string]string{
		"busybox":                     "hub",
		"docker.io/library/busybox:1": "hub",
		"reg.example:5000/a":          "port",
		"reg.example/team/a:2":        "team host",
		"reg.example/other":           "host",
		"a.wild.example/x":            "wild",
		"a.b.wild.example/x":          "",
		"old.example/x":               "old",
		"broken.example/x":            "",
		"reg.example.evil/x":          "",
	} {
		var got []string
		for _, a := range Credentials(secrets, ref) {
			got = append(got, a.Username)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v want %q", ref, got, want)
		}
	}
	b := newBench()
	b.secrets = secrets
	b.runtime.fail = errors.New("no")
	b.ensure("reg.example/team/a:2", corev1.PullAlways)
	if d := cmp.Diff([]string{"team", "host"}, b.runtime.auths); d != "" {
		t.Error(d)
	}
}
