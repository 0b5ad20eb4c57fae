package stored

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestObject(t *testing.T) {
	if m, ok := Object([]byte(`{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"b"}}`)).(*corev1.ConfigMap); !ok || m.Data["a"] != "b" {
		t.Errorf("a built-in object: %+v", m)
	}
	if u, ok := Object([]byte(`{"apiVersion":"shop.example/v1","kind":"Cart","spec":{}}`)).(*unstructured.Unstructured); !ok || u.GetKind() != "Cart" {
		t.Errorf("a custom resource: %+v", u)
	}
	for _, none := range []string{"", "1", "k8s:enc:secretbox:v1:key:x", "k8s\x00\xff", "{"} {
		if obj := Object([]byte(none)); obj != nil {
			t.Errorf("%q was read as %T", none, obj)
		}
	}
}
