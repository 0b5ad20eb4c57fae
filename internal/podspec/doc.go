// Package podspec compiles a Kubernetes container into what libpod is asked to create. It is pure: the same input gives
// the same specification, and nothing is read from the host.
package podspec
