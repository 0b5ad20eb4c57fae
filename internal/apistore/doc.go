// Package apistore is the Kubernetes API server's storage: k8s.io/apiserver's storage.Interface
// over the replicated store of internal/state.
//
// [Backend.RESTOptions] is the one seam: it replaces the storage of every resource. There is no
// watch cache, because the replica already is the cluster's state in memory; every read is a
// lookup in a snapshot of it.
//
// Semantics follow k8s.io/apiserver/pkg/storage/etcd3, whose conformance tests run here:
//
//   - a resourceVersion is the store's revision;
//   - resourceVersion "" reads after a barrier (linearizable), "0" reads local memory, N reads
//     local memory and needs a barrier only when this replica has not reached N. Without a leader
//     all of them read local memory, with a warning;
//   - writes are compare-and-swap on the revision they were computed from. An update starts from
//     local memory and pays for a barrier only when it is about to refuse or to skip the write;
//   - values are encoded with the resource's codec and then pass the resource's transformer
//     (encryption at rest), with the key as authenticated data;
//   - a watch is one goroutine reading the store's event window, and decodes an event only when
//     its key is below the watched prefix.
//
// Keys are the API server's own ("/pods/namespace/name"): every key that begins with "/" belongs
// to this package.
package apistore
