// Package reach makes clients of the extension API out of kubeconfigs: what a Kubernetes client
// would trust, and whom it would claim to be, holds for /swarm/v1 too.
package reach
