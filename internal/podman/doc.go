// Package podman is a small client of the libpod API: the endpoints the agent needs, on Podman 4.3 to 5.x.
package podman
