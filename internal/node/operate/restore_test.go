package operate

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/node/operate/bare"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// shown are changes in words.
func shown(c changes) string {
	var out []string
	for _, w := range slices.Concat(c.removals, c.writes) {
		verb := "put "
		if w.Delete {
			verb = "delete "
		}
		out = append(out, strings.TrimSpace(verb+w.Key+" "+string(w.Value)))
	}
	for _, name := range c.namespaces {
		out = append(out, "end namespace "+name)
	}
	for _, p := range c.pods {
		switch {
		case p.Then == nil:
			out = append(out, "end pod "+p.Now.Name)
		case p.Now == nil:
			out = append(out, "make pod "+p.Then.Name)
		default:
			out = append(out, "change pod "+p.Now.Name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func remove(t *testing.T, n *nodetest.Node, key string) {
	t.Helper()
	if _, err := n.Store.Apply(t.Context(), state.Write{Key: key, Delete: true, Expect: state.Any}); err != nil {
		t.Fatal(err)
	}
}

// putObject stores an object as the API server does.
func putObject(t *testing.T, n *nodetest.Node, key string, gvk schema.GroupVersionKind, obj runtime.Object) {
	t.Helper()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	n.Put(t, key, string(data))
}

func podGVK() schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind("Pod") }

func of(kind, name string) metav1.ObjectMeta {
	yes := true
	return metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: kind, Name: name, UID: types.UID(name), Controller: &yes}}}
}

func withName(m metav1.ObjectMeta, name, uid string) metav1.ObjectMeta {
	m.Namespace, m.Name, m.UID = "default", name, types.UID(uid)
	return m
}

// A restore by writes makes the objects what they were, and leaves alone what belongs to the swarm
// itself and what expires.
func TestRestoreByWrites(t *testing.T) {
	o := operateOn(t, "n1")
	n := o.nodes[0]
	n.Put(t, "/configmaps/default/same", "1")
	n.Put(t, "/configmaps/default/changed", "old")
	n.Put(t, "/configmaps/default/deleted", "back")
	n.Put(t, "/swarm/backups/policy", "then")
	then := n.Store.View()
	n.Put(t, "/configmaps/default/changed", "new")
	n.Put(t, "/configmaps/default/made", "x")
	n.Put(t, "/swarm/backups/policy", "now")
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	if _, err := n.Store.Apply(ctx, state.Write{Key: "/events/default/e", Value: []byte("e"), Expect: state.Any, TTL: 3600}); err != nil {
		t.Fatal(err)
	}
	remove(t, n, "/configmaps/default/deleted")
	needed := difference(n.Store.View(), then)
	if got, want := shown(needed), "delete /configmaps/default/made; put /configmaps/default/changed old; put /configmaps/default/deleted back"; got != want {
		t.Errorf("changes %s\nwant %s", got, want)
	}
	kept := &backups{Config: o.configs[0]}
	if err := kept.change(ctx, needed, o.say); err != nil {
		t.Fatal(err)
	}
	if left := difference(n.Store.View(), then); left.count() > 0 {
		t.Errorf("after the restore there is to do: %s", shown(left))
	}
	for key, want := range map[string]string{"/swarm/backups/policy": "now", "/events/default/e": "e"} {
		if e, ok := n.Store.View().Get(key); !ok || string(e.Value) != want {
			t.Errorf("%s is %+v, want %s", key, e, want)
		}
	}
}

// Nodes that joined since stay, nodes that were removed since do not come back, and whoever leads
// something goes on.
func TestRestoreLeavesNodesAsTheyAre(t *testing.T) {
	o := operateOn(t, "n1")
	n := o.nodes[0]
	prefixes := []string{"/minions/", "/csinodes/", "/leases/kube-node-lease/", "/leases/default/", "/volumeattachments/", "/events/default/"}
	for _, prefix := range prefixes {
		n.Put(t, prefix+"stays", "then")
		n.Put(t, prefix+"removed-since", "then")
	}
	then := n.Store.View()
	for _, prefix := range prefixes {
		n.Put(t, prefix+"stays", "now")
		n.Put(t, prefix+"joined-since", "now")
		remove(t, n, prefix+"removed-since")
	}
	if got := shown(difference(n.Store.View(), then)); got != "" {
		t.Errorf("changes %s", got)
	}
}

// What a controller makes is its own affair: a pod of a StatefulSet is not replaced by its former version
// under the node that runs it.
func TestRestoreLeavesToControllersWhatTheyMake(t *testing.T) {
	o := operateOn(t, "n1")
	n := o.nodes[0]
	put := func(uid string) {
		putObject(t, n, "/pods/default/db-0", podGVK(), &corev1.Pod{ObjectMeta: withName(of("StatefulSet", "db"), "db-0", uid)})
		putObject(t, n, "/replicasets/default/web-1", appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
			&appsv1.ReplicaSet{ObjectMeta: withName(of("Deployment", "web"), "web-1", uid)})
		putObject(t, n, "/endpointslices/default/web-x", discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
			&discoveryv1.EndpointSlice{ObjectMeta: withName(of("Service", "web"), "web-x", uid)})
		byController := metav1.ObjectMeta{Labels: map[string]string{"endpoints.kubernetes.io/managed-by": "endpoint-controller"}}
		putObject(t, n, "/services/endpoints/default/web", corev1.SchemeGroupVersion.WithKind("Endpoints"),
			&corev1.Endpoints{ObjectMeta: withName(byController, "web", uid)}) //nolint:staticcheck // clients may still read them
		putObject(t, n, "/services/endpoints/default/kubernetes", corev1.SchemeGroupVersion.WithKind("Endpoints"),
			&corev1.Endpoints{ObjectMeta: withName(metav1.ObjectMeta{}, "kubernetes", uid)}) //nolint:staticcheck // as above
		putObject(t, n, "/pods/default/since-or-then-"+uid, podGVK(), &corev1.Pod{ObjectMeta: withName(of("ReplicaSet", "web-1"), "since-or-then-"+uid, uid)})
	}
	put("then")
	then := n.Store.View()
	put("now")
	remove(t, n, "/pods/default/since-or-then-then")
	if got := shown(difference(n.Store.View(), then)); got != "" {
		t.Errorf("changes %s", got)
	}
}

// Watchers see one object go before another comes under its name, so that what belongs to the one is
// collected; an object of which only the status differs stays, so that no Job runs twice; a namespace ends
// as if it had been deleted.
func TestRestoreOfObjects(t *testing.T) {
	o := operateOn(t, "n1")
	n := o.nodes[0]
	job := batchv1.SchemeGroupVersion.WithKind("Job")
	deployment := appsv1.SchemeGroupVersion.WithKind("Deployment")
	namespace := corev1.SchemeGroupVersion.WithKind("Namespace")
	putObject(t, n, "/jobs/default/once", job, &batchv1.Job{ObjectMeta: withName(metav1.ObjectMeta{}, "once", "1"), Status: batchv1.JobStatus{Active: 1}})
	putObject(t, n, "/deployments/default/web", deployment, &appsv1.Deployment{ObjectMeta: withName(metav1.ObjectMeta{}, "web", "then")})
	putObject(t, n, "/namespaces/both", namespace, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "both", UID: "then"}})
	then := n.Store.View()
	putObject(t, n, "/jobs/default/once", job, &batchv1.Job{ObjectMeta: withName(metav1.ObjectMeta{}, "once", "1"), Status: batchv1.JobStatus{Succeeded: 1}})
	putObject(t, n, "/deployments/default/web", deployment, &appsv1.Deployment{ObjectMeta: withName(metav1.ObjectMeta{}, "web", "now")})
	putObject(t, n, "/namespaces/both", namespace, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "both", UID: "now"}})
	since := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "since"}}
	putObject(t, n, "/namespaces/since", namespace, since)
	if err := o.client.Tracker().Add(since); err != nil {
		t.Fatal(err)
	}

	needed := difference(n.Store.View(), then)
	if got := keysOf(needed.removals); got != "/deployments/default/web" {
		t.Errorf("removed first: %s", got)
	}
	if got := keysOf(needed.writes); got != "/deployments/default/web /namespaces/both" {
		t.Errorf("written: %s", got)
	}
	if !slices.Equal(needed.namespaces, []string{"since"}) {
		t.Errorf("namespaces that end: %v", needed.namespaces)
	}
	kept := &backups{Config: o.configs[0]}
	if err := kept.change(t.Context(), needed, o.say); err != nil {
		t.Fatal(err)
	}
	if _, err := o.client.CoreV1().Namespaces().Get(t.Context(), "since", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace made since: %v", err)
	}
	if e, ok := n.Store.View().Get("/deployments/default/web"); !ok || e.CreateRevision != e.ModRevision {
		t.Errorf("%+v: it was not removed before it was written", e)
	}
}

func keysOf(writes []state.Write) string {
	var out []string
	for _, w := range writes {
		out = append(out, w.Key)
	}
	return strings.Join(out, " ")
}

// lone is a pod that nobody's controller makes again.
func lone(name, uid, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: withName(metav1.ObjectMeta{}, name, uid),
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: image}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// Pods without a controller end, change and come back through the API, so that nodes end what they run
// and the scheduler finds a place for what is made again.
func TestRestoreOfPodsWithoutAController(t *testing.T) {
	o := operateOn(t, "n1")
	n := o.nodes[0]
	key := func(p *corev1.Pod) string { return "/pods/default/" + p.Name }
	done := lone("done", "1", "v1")
	done.Status.Phase = corev1.PodSucceeded
	for _, p := range []*corev1.Pod{
		done, lone("gone", "1", "v1"), lone("same", "1", "v1"), lone("changed", "1", "v1"), lone("fixed", "1", "v1"),
		lone("another", "then", "v1"), lone("alike", "then", "v1"),
	} {
		putObject(t, n, key(p), podGVK(), p)
	}
	then := n.Store.View()
	remove(t, n, "/pods/default/gone")
	remove(t, n, "/pods/default/done")
	same := lone("same", "1", "v1")
	same.Status.Message = "only its status differs"
	for _, p := range []*corev1.Pod{
		lone("made", "1", "v1"), same, lone("changed", "1", "v2"), lone("fixed", "1", "v2"), lone("another", "now", "v2"), lone("alike", "now", "v1"),
	} {
		putObject(t, n, key(p), podGVK(), p)
		if err := o.client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	o.client.PrependReactor("update", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.UpdateAction).GetObject().(*corev1.Pod).Name
		return name != "changed", nil, apierrors.NewInvalid(podGVK().GroupKind(), name, nil)
	})

	needed := difference(n.Store.View(), then)
	if got, want := shown(needed), "change pod another; change pod changed; change pod fixed; end pod made; make pod gone"; got != want {
		t.Errorf("changes %s\nwant %s", got, want)
	}
	kept := &backups{Config: o.configs[0]}
	if err := kept.change(t.Context(), needed, o.say); err != nil {
		t.Fatal(err)
	}
	list, err := o.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range list.Items {
		got = append(got, strings.Join([]string{p.Name, string(p.UID), p.Spec.Containers[0].Image, p.Spec.NodeName, string(p.Status.Phase)}, " "))
	}
	slices.Sort(got)
	if want := []string{"alike now v1 n1 Running", "another  v1  ", "changed 1 v1 n1 Running", "fixed 1 v2 n1 Running", "gone  v1  ", "same 1 v1 n1 Running"}; !slices.Equal(got, want) {
		t.Errorf("pods %q\nwant %q", got, want)
	}
	for _, a := range o.client.Actions() {
		if d, ok := a.(clienttesting.DeleteAction); ok && (d.GetDeleteOptions().GracePeriodSeconds != nil || d.GetDeleteOptions().Preconditions == nil) {
			t.Errorf("%s was deleted with %+v: not with its own grace, or whichever it was", d.GetName(), d.GetDeleteOptions())
		}
	}
	if said := strings.Join(o.said, "\n"); !strings.Contains(said, "pod default/fixed stays as it is") {
		t.Errorf("said %s", said)
	}
}

// What could not be changed is told, and how to go on.
func TestRestoreTellsWhatItCouldNotDo(t *testing.T) {
	o := operateOn(t, "n1")
	o.client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("the API is away")
	})
	kept := &backups{Config: o.configs[0]}
	err := kept.change(t.Context(), changes{
		pods: []bare.Change{{Now: lone("made", "1", "v1")}}, writes: []state.Write{{Key: "/configmaps/default/a", Expect: state.Any}},
	}, o.say)
	wantError(t, err, "1 of 2 changes were not made, the first: delete pod default/made: the API is away: run the restore again")
	if _, ok := o.nodes[0].Store.View().Get("/configmaps/default/a"); !ok {
		t.Error("what could be done was not done")
	}
}
