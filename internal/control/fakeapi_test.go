package control_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// api is an API server with every kind the controllers watch and no object of any. It remembers
// who asked.
type api struct {
	rest      *rest.Config
	transport *http.Transport

	mu    sync.Mutex
	users map[string]bool
}

func startAPI(t *testing.T) *api {
	t.Helper()
	a := &api{users: map[string]bool{}}
	ending := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, ending) }))
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(func() {
		close(ending)
		transport.CloseIdleConnections()
		server.Close()
	})
	a.rest, a.transport = &rest.Config{Host: server.URL, Transport: transport}, transport
	return a
}

// seen returns the users that made requests, sorted.
func (a *api) seen() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var users []string
	for user := range a.users {
		users = append(users, user)
	}
	slices.Sort(users)
	return users
}

func (a *api) serve(w http.ResponseWriter, r *http.Request, ending <-chan struct{}) {
	a.mu.Lock()
	a.users[r.Header.Get("Impersonate-User")+" "+r.UserAgent()] = true
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	path, query := strings.TrimSuffix(r.URL.Path, "/"), r.URL.Query()
	switch {
	case path == "/api":
		reply(w, metav1.APIVersions{TypeMeta: kind("APIVersions", "v1"), Versions: []string{"v1"}})
	case path == "/apis":
		reply(w, metav1.APIGroupList{TypeMeta: kind("APIGroupList", "v1"), Groups: []metav1.APIGroup{group("apps/v1"), group("certificates.k8s.io/v1")}})
	case path == "/api/v1":
		reply(w, resources("v1", "pods/Pod", "configmaps/ConfigMap", "secrets/Secret", "services/Service"))
	case path == "/apis/apps/v1":
		reply(w, resources("apps/v1", "replicasets/ReplicaSet", "deployments/Deployment"))
	case path == "/apis/certificates.k8s.io/v1":
		reply(w, resources("certificates.k8s.io/v1", "clustertrustbundles/ClusterTrustBundle"))
	case query.Get("watch") == "true" && query.Get("sendInitialEvents") == "true":
		// The initial list is empty, which the informer wants to be told.
		fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n")
		fallthrough
	case query.Get("watch") == "true":
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-ending:
		}
	case r.Method == http.MethodGet && strings.Contains(path, "/namespaces/"):
		w.WriteHeader(http.StatusNotFound)
		reply(w, metav1.Status{TypeMeta: kind("Status", "v1"), Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
	default:
		fmt.Fprint(w, `{"metadata":{"resourceVersion":"1"},"items":[]}`)
	}
}

func reply(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

func kind(kind, version string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: version}
}

func group(version string) metav1.APIGroup {
	name, v, _ := strings.Cut(version, "/")
	at := metav1.GroupVersionForDiscovery{GroupVersion: version, Version: v}
	return metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{at}, PreferredVersion: at}
}

func resources(version string, names ...string) metav1.APIResourceList {
	list := metav1.APIResourceList{TypeMeta: kind("APIResourceList", "v1"), GroupVersion: version}
	for _, name := range names {
		plural, kind, _ := strings.Cut(name, "/")
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: plural, Kind: kind, Namespaced: true,
			Verbs: metav1.Verbs{"create", "delete", "get", "list", "patch", "update", "watch"},
		})
	}
	return list
}
