// Package stream serves the part of the kubelet's HTTP API that the API server proxies to: exec, attach,
// port-forward and container logs, with the published k8s.io/cri-streaming, plus /pods and /healthz.
package stream
