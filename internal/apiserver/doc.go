// Package apiserver serves the Kubernetes API v1.37 over the swarm's own store.
//
// It is upstream's API server as a library: the real registries (defaulting, validation,
// printers), CRDs, aggregation, admission, RBAC and Node authorization, API priority and fairness,
// audit, ServiceAccount tokens. What is ours, and why:
//
//	generic.go    upstream's BuildGenericConfig without etcd and with our loopback client
//	chain.go      extensions <- built-in APIs <- aggregator, as kube-apiserver links them
//	core.go       the core group; upstream's node port allocator is hard-wired to etcd
//	extra.go      further paths behind the same authentication, authorization and audit
//	kubelet.go    logs, exec, attach, port-forward reach nodes over the swarm's own connections
//	endpoints.go  the endpoints of the `kubernetes` Service: each node owns its address
//	bootstrap.go  default roles and priority classes, without upstream's second of sleep
//	trim.go       what is dropped once everything is assembled
//	scratch.go    the server that a child process builds to write OpenAPI documents
//	encryption.go rotation of the keys for Secrets at rest
//	nodeports/    node ports are keys of the store: any number of servers may hand them out
//	inproc/       in-process clients call the handler directly: no TLS, no HTTP/2, no socket
//	openapi/      OpenAPI documents are kept on disk and streamed from there
//
// Storage enters at one seam, RESTOptions.Decorator (package apistore). There is no watch cache.
//
// Every node runs one, all over one store. What each keeps to itself, and why that is right:
//
//	node ports        keys in the store, made by compare-and-swap
//	cluster IPs       IPAddress objects, made by compare-and-swap; the informers behind them only guess
//	`kubernetes`      every node writes its own address, and tries again when others do at the same time;
//	                  the leader takes away those of nodes that are dead or gone (control)
//	default objects   roles, priority classes, namespaces, ServiceCIDR, flow schemas: made by whoever is
//	                  first; a conflict is tried again
//	repair loops      upstream's, for cluster IPs, and ours: idempotent, on every node at the same time
//	quota             counted in the ResourceQuota's status by compare-and-swap, read live
//	admission, RBAC,  from informers that are milliseconds behind writes made through another node, as
//	Node authorizer   with several kube-apiservers; namespaces, limits and accounts are then read live
//	CRDs              served by another node when its informer has heard (upstream waits 5 s for that, we
//	                  do not: a watch takes milliseconds here)
//	token caches      10 s, as upstream
//	priority levels   shared out per server, as upstream: the limits are each process's own
//	leases            none: APIServerIdentity is off, the endpoints of `kubernetes` need none
//	audit, OpenAPI    files of the node
//	encryption keys   a file of the node that the nodes share among themselves (pki)
//
// The serving process never builds OpenAPI documents (45-50 MB), keeps no definitions after
// start, and starts no etcd client.
package apiserver
