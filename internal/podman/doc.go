// Package podman is a small client of the libpod API: the endpoints the agent needs, on Podman 4.3 to 5.x, rootful and
// rootless, and a service of our own where the machine runs none.
//
// Nothing here resolves a name to create or start a container: images are found by exact local names and used by ID.
// Logs are written by conmon in the CRI format; see RotateLog. The contract test says what else is relied on.
package podman
