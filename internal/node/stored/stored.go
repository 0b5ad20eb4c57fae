package stored

import (
	"bytes"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// Object reads a stored value; nil when it is none that this release knows, or is encrypted: what is
// secret at rest stays secret.
func Object(value []byte) runtime.Object {
	if len(value) == 0 || bytes.HasPrefix(value, []byte("k8s:enc:")) {
		return nil
	}
	if obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(value, nil, nil); err == nil {
		return obj
	}
	// Custom resources are stored as JSON.
	obj, _, err := unstructured.UnstructuredJSONScheme.Decode(value, nil, nil)
	if err != nil {
		return nil
	}
	return obj
}
