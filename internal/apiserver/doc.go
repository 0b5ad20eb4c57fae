// Package apiserver serves the Kubernetes API v1.37 over the swarm's own store.
//
// It is upstream's API server as a library: the real registries (defaulting, validation,
// printers), CRDs, aggregation, admission, RBAC and Node authorization, API priority and fairness,
// audit, ServiceAccount tokens. What is ours, and why:
//
//	generic.go    upstream's BuildGenericConfig without etcd and with our loopback client
//	chain.go      extensions <- built-in APIs <- aggregator, as kube-apiserver links them
//	core.go       the core group; upstream's node port allocator is hard-wired to etcd
//	nodeports.go  node ports in memory, refilled from the stored Services before serving
//	kubelet.go    logs, exec, attach, port-forward reach nodes over the swarm's own connections
//	endpoints.go  the endpoints of the `kubernetes` Service: each node owns its address
//	bootstrap.go  default roles and priority classes, without upstream's second of sleep
//	trim.go       what is dropped once everything is assembled
//	scratch.go    the server that a child process builds to write OpenAPI documents
//	encryption.go rotation of the keys for Secrets at rest
//	inproc/       in-process clients call the handler directly: no TLS, no HTTP/2, no socket
//	openapi/      OpenAPI documents are kept on disk and streamed from there
//
// Storage enters at one seam, RESTOptions.Decorator (package apistore). There is no watch cache.
//
// The serving process never builds OpenAPI documents (45-50 MB), keeps no definitions after
// start, and starts no etcd client.
package apiserver
