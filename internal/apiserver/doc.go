// Package apiserver serves the Kubernetes API v1.37 over the swarm's own store.
//
// It is upstream's API server as a library: the real registries (defaulting, validation,
// printers), CRDs, aggregation, admission, RBAC and Node authorization, API priority and fairness,
// audit, ServiceAccount tokens. What is ours, and why:
//
//	generic.go    upstream's BuildGenericConfig without etcd and with our loopback client
//	loopback.go   in-process clients call the handler directly: no TLS, no HTTP/2, no socket
//	chain.go      extensions <- built-in APIs <- aggregator, as kube-apiserver links them
//	core.go       the core group; upstream's node port allocator is hard-wired to etcd
//	nodeports.go  node ports in memory, refilled from the stored Services before serving
//	kubelet.go    logs, exec, attach, port-forward reach nodes over the swarm's own connections
//	endpoints.go  the endpoints of the `kubernetes` Service: each node owns its address
//	openapi_*.go  OpenAPI is built by a child process, kept on disk and streamed from there
//	encryption.go rotation of the keys for Secrets at rest
//
// Storage enters at one seam, RESTOptions.Decorator (package apistore). There is no watch cache.
//
// The serving process never builds OpenAPI documents (45-50 MB), keeps no definitions after
// start, and starts no etcd client.
package apiserver
