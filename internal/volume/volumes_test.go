package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a fake API.
type world struct {
	mu         sync.Mutex
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
	tokens     int
	tokenErr   error
}

func (w *world) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if cm := w.configMaps[name]; cm != nil {
		return cm, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmap"}, name)
}

func (w *world) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if s := w.secrets[name]; s != nil {
		return s, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secret"}, name)
}

func (w *world) Token(_ context.Context, ns, account string, r *authenticationv1.TokenRequest,
) (*authenticationv1.TokenRequest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tokenErr != nil {
		return nil, w.tokenErr
	}
	w.tokens++
	r = r.DeepCopy()
	r.Status.Token = fmt.Sprintf("%s/%s/%v/%d", ns, account, r.Spec.Audiences, w.tokens)
	r.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*r.Spec.ExpirationSeconds) * time.Second))
	return r, nil
}

func (*world) NodeAllocatable() corev1.ResourceList {
	return corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi")}
}

// recorder is an Owner that cannot give files away but notes what it was asked.
type recorder struct {
	Direct
	changes []Change
}

func (r *recorder) Apply(_ context.Context, changes []Change) error {
	r.changes = append(r.changes, changes...)
	return nil
}

func setup(t *testing.T) (*Volumes, *world, *recorder) {
	t.Helper()
	w := &world{configMaps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}}
	r := &recorder{}
	return New(Config{
		Dir: filepath.Join(t.TempDir(), "pods"), MemoryDir: t.TempDir(), Sources: w, Rootless: true, Owner: r,
	}), w, r
}

// podWith has one container that mounts all the volumes below /v.
func podWith(vols ...corev1.Volume) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid-1"},
		Spec:       corev1.PodSpec{Volumes: vols, ServiceAccountName: "sa", Containers: []corev1.Container{{Name: "c"}}},
	}
	for _, v := range vols {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts,
			corev1.VolumeMount{Name: v.Name, MountPath: "/v/" + v.Name})
	}
	return p
}

func vol(name string, src corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: src}
}

func ptr[T any](v T) *T { return &v }

// tree lists what a container sees: "path mode content".
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	var walk func(at, rel string)
	walk = func(at, rel string) {
		entries, err := os.ReadDir(at)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			path, r := filepath.Join(at, e.Name()), filepath.Join(rel, e.Name())
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(path, r)
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrPermission) {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("%s %04o %s", r, info.Mode().Perm(), b))
		}
	}
	walk(dir, "")
	return list
}

func mustSetup(t *testing.T, v *Volumes, pod *corev1.Pod) map[string]string {
	t.Helper()
	paths, err := v.Setup(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestConfigMapAndSecret(t *testing.T) {
	v, w, _ := setup(t)
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {0, 1}}}
	w.secrets["s"] = &corev1.Secret{Data: map[string][]byte{"key": []byte("x")}}
	pod := podWith(
		vol("all", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}),
		vol("some", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, DefaultMode: ptr[int32](0o400),
			Items: []corev1.KeyToPath{{Key: "a", Path: "deep/er/one"}, {Key: "b", Path: "deep/two", Mode: ptr[int32](0o755)}},
		}}),
		vol("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}),
		vol("none", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "missing", Optional: ptr(true)}}),
	)
	paths := mustSetup(t, v, pod)
	for name, want := range map[string][]string{
		"all":    {"a 0644 1", "b 0644 2", "bin 0644 \x00\x01"},
		"some":   {"deep/er/one 0400 1", "deep/two 0755 2"},
		"secret": {"key 0644 x"},
		"none":   nil,
	} {
		if d := cmp.Diff(want, tree(t, paths[name])); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if !strings.HasPrefix(paths["secret"], v.cfg.MemoryDir) || !strings.HasPrefix(paths["all"], v.cfg.Dir) {
		t.Errorf("secrets belong in memory, ConfigMaps on disk: %v", paths)
	}
	for _, ref := range []struct {
		kind, name string
		want       bool
	}{{"ConfigMap", "cm", true}, {"Secret", "s", true}, {"Secret", "missing", true}, {"Secret", "cm", false}} {
		if Uses(pod, ref.kind, ref.name) != ref.want {
			t.Errorf("Uses(%s %s) = %v", ref.kind, ref.name, !ref.want)
		}
	}
}

func TestRefreshSwapsAtOnce(t *testing.T) {
	v, w, _ := setup(t)
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"keep": "1", "drop": "x", "sub": "s"}}
	pod := podWith(vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}))
	dir := mustSetup(t, v, pod)["cm"]
	data := func() string {
		s, err := os.Readlink(filepath.Join(dir, dataName))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := data()
	for _, again := range []*Volumes{v, New(v.cfg)} { // the second is an agent that was restarted
		mustSetup(t, again, pod)
		if data() != before {
			t.Error("an unchanged volume was written again")
		}
	}
	// What a crash in the middle of an update leaves.
	_ = os.Symlink("..nowhere", filepath.Join(dir, newDataName))
	_ = os.Mkdir(filepath.Join(dir, "..2001_01_01_00_00_00.1"), 0o755)
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"keep": "2", "new": "n"}}
	mustSetup(t, v, pod)
	if d := cmp.Diff([]string{"keep 0644 2", "new 0644 n"}, tree(t, dir)); d != "" {
		t.Error(d)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 4 { // ..data, its target, keep, new
		t.Errorf("left over: %v", entries)
	}
	// An object that goes away leaves the files and tells.
	w.configMaps = nil
	_, err := v.Setup(t.Context(), pod)
	if err == nil || err.Error() != `MountVolume.SetUp failed for volume "cm" : configmap "cm" not found` {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"keep 0644 2", "new 0644 n"}, tree(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestErrors(t *testing.T) {
	v, w, _ := setup(t)
	w.configMaps["cm"] = &corev1.ConfigMap{}
	w.secrets["s"] = &corev1.Secret{}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	items := []corev1.KeyToPath{{Key: "k", Path: "p"}}
	host := func(path string, kind corev1.HostPathType) corev1.VolumeSource {
		return corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}
	}
	field := func(path string) corev1.VolumeSource {
		return corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{
			Path: "x", FieldRef: &corev1.ObjectFieldSelector{FieldPath: path},
		}}}}
	}
	for want, src := range map[string]corev1.VolumeSource{
		`secret "no" not found`:                                                {Secret: &corev1.SecretVolumeSource{SecretName: "no"}},
		`configmap references non-existent config key: k`:                      {ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Items: items}},
		`references non-existent secret key: k`:                                {Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: items}},
		`volume type "persistentVolumeClaim" is not supported by Podman Swarm`: {PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}},
		`volume type "nfs" is not supported by Podman Swarm`:                   {NFS: &corev1.NFSVolumeSource{}},
		`volume type "csi" is not supported by Podman Swarm`:                   {CSI: &corev1.CSIVolumeSource{}},
		`volume type "image" is not supported by Podman Swarm`:                 {Image: &corev1.ImageVolumeSource{}},
		`storage medium "HugePages" is not supported by Podman Swarm`:          {EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "HugePages"}},
		`[secret "a" not found, configmap "b" not found]`: {Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "a"}}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "b"}}},
		}}},
		`projected volume source "clusterTrustBundle" is not supported by Podman Swarm`: {Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}},
		}},
		"hostPath type check failed: " + file + " is not a directory, it's a File":                                         host(file, corev1.HostPathDirectory),
		"hostPath type check failed: " + file + " is not a socket file, it's a File":                                       host(file, corev1.HostPathSocket),
		"hostPath type check failed: /dev/null is not a block device, it's a CharDevice":                                   host("/dev/null", corev1.HostPathBlockDev),
		`hostPath type check failed, /no/such is not a file, unable to determine its type: path "/no/such" does not exist`: host("/no/such", corev1.HostPathFile),
		"invalid HostPath `/a/../b`: must not contain '..'":                                                                host("/a/../b", ""),
		"strange is an invalid volume type":                                                                                host("/", "strange"),
		`unsupported fieldPath: status.podIP`:                                                                              field("status.podIP"),
		`fieldPath "spec.x['a']" does not support subscript`:                                                               field("spec.x['a']"),
		`invalid path: must not start with '..': ..data`:                                                                   {Secret: &corev1.SecretVolumeSource{SecretName: "dots"}},
		`container other not found`: {DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{
			Path: "x", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "other", Resource: "limits.cpu"},
		}}}},
	} {
		w.secrets["dots"] = &corev1.Secret{Data: map[string][]byte{"..data": nil}}
		_, err := v.Setup(t.Context(), podWith(vol("bad", src)))
		list := Errors(err)
		if len(list) != 1 || list[0].Volume != "bad" || list[0].Err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	// One bad volume does not keep the others away, and one that nobody mounts is not looked at.
	pod := podWith(vol("bad", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}), vol("worse", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}),
		vol("good", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	pod.Spec.Volumes = append(pod.Spec.Volumes, vol("unused", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "no"}}))
	paths, err := v.Setup(t.Context(), pod)
	if got := slices.Collect(maps.Keys(paths)); !slices.Equal(got, []string{"good"}) || len(Errors(err)) != 2 {
		t.Errorf("paths %v, errors %v", got, err)
	}
}

func TestHostPathMakes(t *testing.T) {
	v, _, _ := setup(t)
	base := t.TempDir()
	for kind, isDir := range map[corev1.HostPathType]bool{
		corev1.HostPathUnset: true, corev1.HostPathDirectoryOrCreate: true, corev1.HostPathFileOrCreate: false,
	} {
		path := filepath.Join(base, "x"+string(kind))
		for range 2 {
			mustSetup(t, v, podWith(vol("h", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}})))
			if info, err := os.Stat(path); err != nil || info.IsDir() != isDir {
				t.Errorf("%q: %v %v", kind, info, err)
			}
		}
	}
}

func TestDownwardAPI(t *testing.T) {
	v, _, _ := setup(t)
	fields := map[string]string{
		"name": "metadata.name", "ns": "metadata.namespace", "uid": "metadata.uid", "labels": "metadata.labels",
		"annotations": "metadata.annotations", "one": "metadata.labels['app.kubernetes.io/name']", "note": "metadata.annotations['Note']",
	}
	resources := map[string][2]string{
		"lcpu": {"limits.cpu", "1"}, "rcpu": {"requests.cpu", "1m"}, "lmem": {"limits.memory", "1Mi"}, "rmem": {"requests.memory", "0"},
		"huge": {"limits.hugepages-2Mi", "1Mi"},
	}
	src := &corev1.DownwardAPIVolumeSource{}
	for path, f := range fields {
		src.Items = append(src.Items, corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: f}})
	}
	for path, r := range resources {
		src.Items = append(src.Items, corev1.DownwardAPIVolumeFile{Path: path, ResourceFieldRef: &corev1.ResourceFieldSelector{
			ContainerName: "c", Resource: r[0], Divisor: resource.MustParse(r[1]),
		}})
	}
	pod := podWith(vol("d", corev1.VolumeSource{DownwardAPI: src}))
	pod.Labels = map[string]string{"b": "2", "a": "1\n\"", "app.kubernetes.io/name": "web"}
	pod.Annotations = map[string]string{"Note": "n"}
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "hugepages-2Mi": resource.MustParse("4Mi")},
		Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("100M")},
	}
	dir := mustSetup(t, v, pod)["d"]
	want := []string{
		`annotations 0644 Note="n"`, "huge 0644 4", "labels 0644 a=\"1\\n\\\"\"\napp.kubernetes.io/name=\"web\"\nb=\"2\"",
		"lcpu 0644 2", "lmem 0644 8192", "name 0644 p", "note 0644 n", "ns 0644 ns", "one 0644 web", "rcpu 0644 250", "rmem 0644 100000000", "uid 0644 uid-1",
	}
	if d := cmp.Diff(want, tree(t, dir)); d != "" {
		t.Error(d)
	}
	pod.Labels = map[string]string{"new": "label"}
	mustSetup(t, v, pod)
	if b, _ := os.ReadFile(filepath.Join(dir, "labels")); string(b) != `new="label"` {
		t.Errorf("labels were not updated: %s", b)
	}
}

func tokenVolume(seconds int64) corev1.Volume {
	return vol("api", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds, Audience: "me"}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
	}}})
}

func TestTokenRotation(t *testing.T) {
	v, w, _ := setup(t)
	synctest.Test(t, func(t *testing.T) {
		pod := podWith(tokenVolume(3600))
		begin := time.Now()
		at := func() string {
			dir := mustSetup(t, v, pod)["api"]
			b, err := os.ReadFile(filepath.Join(dir, "token"))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if got := at(); got != "ns/sa/[me]/1" {
			t.Fatal(got)
		}
		next := v.NextRefresh(pod).Sub(begin)
		if next > 48*time.Minute || next < 48*time.Minute-maxJitter {
			t.Errorf("renewal after %v, want 80 %% of an hour less at most 10 s", next)
		}
		<-time.After(next - time.Second)
		if got := at(); got != "ns/sa/[me]/1" {
			t.Errorf("renewed too early: %s", got)
		}
		<-time.After(2 * time.Second)
		if got := at(); got != "ns/sa/[me]/2" {
			t.Errorf("not renewed: %s", got)
		}
		// The API server is away: the old token stays, and is asked for again in a minute.
		w.tokenErr = errors.New("no route")
		<-time.After(49 * time.Minute)
		if got := at(); got != "ns/sa/[me]/2" {
			t.Errorf("%s", got)
		}
		if d := time.Until(v.NextRefresh(pod)); d != retryAfter {
			t.Errorf("next try in %v", d)
		}
		<-time.After(time.Hour)
		if _, err := v.Setup(t.Context(), pod); err == nil || !strings.HasSuffix(err.Error(), "expired and refresh failed: no route") {
			t.Error(err)
		}
		if err := v.Teardown(t.Context(), pod.UID); err != nil || !v.NextRefresh(pod).IsZero() {
			t.Errorf("after Teardown: %v, next %v", err, v.NextRefresh(pod))
		}
		if _, err := v.Setup(t.Context(), pod); err == nil || err.Error() != `MountVolume.SetUp failed for volume "api" : failed to fetch token: no route` {
			t.Error(err)
		}
		w.tokenErr = nil
		pod.Spec.Volumes[0] = tokenVolume(7 * 24 * 3600)
		at()
		if d := time.Until(v.NextRefresh(pod)); d > 24*time.Hour || d < 24*time.Hour-maxJitter {
			t.Errorf("a week's token is renewed after %v, want a day", d)
		}
	})
}

func TestOwnership(t *testing.T) {
	v, w, r := setup(t)
	w.secrets["s"] = &corev1.Secret{Data: map[string][]byte{"d": []byte("x")}}
	pod := podWith(tokenVolume(3600),
		vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr[int32](0o400)}}),
		vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr[int64](1000), FSGroup: ptr[int64](2000)}
	paths := mustSetup(t, v, pod)
	got := map[string]string{}
	for _, c := range r.changes {
		p := c.Path
		for name, dir := range paths {
			p = strings.Replace(p, dir, name, 1)
		}
		p = strings.Join(slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return strings.HasPrefix(s, "..") }), "/")
		p = strings.Replace(p, filepath.Join(v.cfg.Dir, "uid-1/volumes"), "DIR", 1)
		mode := "-"
		if c.Mode != nil {
			mode = fmt.Sprintf("%04o", unixMode(*c.Mode))
		}
		got[p] += fmt.Sprintf("%d:%d %s;", c.UID, c.GID, mode)
	}
	want := map[string]string{
		"api": "-1:2000 2755;-1:2000 2777;", "api/token": "1000:-1 -;-1:2000 0640;", "api/namespace": "-1:2000 0644;",
		"s": "-1:2000 2755;-1:2000 2777;", "s/d": "-1:2000 0440;", "DIR/.new.e": "-1:2000 2777;",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.changes = nil
	mustSetup(t, v, pod)
	if len(r.changes) != 0 {
		t.Errorf("nothing changed, yet: %v", r.changes)
	}
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: ptr[int64](7)}
	if u := tokenUser(pod); u == nil || *u != 7 {
		t.Errorf("token user %v", u)
	}
	pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
	if u := tokenUser(pod); u != nil {
		t.Errorf("containers run as different users, token user %v", *u)
	}
}

func TestTeardownAndList(t *testing.T) {
	v, w, _ := setup(t)
	w.secrets["s"] = &corev1.Secret{}
	for _, uid := range []types.UID{"b", "a"} {
		pod := podWith(vol("m", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}),
			vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}))
		pod.UID = uid
		paths := mustSetup(t, v, pod)
		if err := os.WriteFile(filepath.Join(paths["m"], "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		mustSetup(t, v, pod)
		if _, err := os.Stat(filepath.Join(paths["m"], "f")); err != nil {
			t.Error("Setup emptied an emptyDir")
		}
	}
	if uids, err := v.List(); err != nil || !slices.Equal(uids, []types.UID{"a", "b"}) {
		t.Errorf("List = %v, %v", uids, err)
	}
	for _, uid := range []types.UID{"a", "a", "b"} {
		if err := v.Teardown(t.Context(), uid); err != nil {
			t.Error(err)
		}
	}
	for _, uid := range []types.UID{"", ".", "..", "a/b", "../x"} {
		if err := v.Teardown(t.Context(), uid); err == nil {
			t.Errorf("Teardown(%q) did not refuse", uid)
		}
	}
	if uids, err := v.List(); err != nil || len(uids) != 0 {
		t.Errorf("List = %v, %v", uids, err)
	}
	if len(v.written)+len(v.locks) != 0 {
		t.Errorf("memory of pods that are gone: %d, %d", len(v.written), len(v.locks))
	}
}

func TestNotes(t *testing.T) {
	v, _, _ := setup(t)
	limit := resource.MustParse("1Gi")
	got := v.Notes(podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}), vol("f", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})))
	if d := cmp.Diff([]string{`volume "e": sizeLimit 1Gi is not enforced on this node`}, got); d != "" {
		t.Error(d)
	}
}
