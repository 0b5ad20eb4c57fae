package apiserver

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// Every kind of default role and binding is made: of users, of controllers, of namespaces.
func TestEnsureRoles(t *testing.T) {
	client := fake.NewClientset()
	for range 2 { // again is harmless
		if err := ensureRoles(t.Context(), client); err != nil {
			t.Fatal(err)
		}
	}
	rbac, get := client.RbacV1(), metav1.GetOptions{}
	check := func(kind, name string, err error) {
		if err != nil {
			t.Errorf("%s %s: %v", kind, name, err)
		}
	}
	for _, name := range []string{"cluster-admin", "system:controller:deployment-controller", "system:controller:job-controller"} {
		_, err := rbac.ClusterRoles().Get(t.Context(), name, get)
		check("role", name, err)
		_, err = rbac.ClusterRoleBindings().Get(t.Context(), name, get)
		check("binding", name, err)
	}
	for namespace, name := range map[string]string{
		"kube-system": "system::leader-locking-kube-scheduler",
		"kube-public": "system:controller:bootstrap-signer",
	} {
		_, err := rbac.Roles(namespace).Get(t.Context(), name, get)
		check("role", name, err)
		_, err = rbac.RoleBindings(namespace).Get(t.Context(), name, get)
		check("binding", name, err)
	}
}
