// Package volume makes a pod's volumes on this host and keeps their files current, as a kubelet does,
// and says which host paths a container mounts where.
//
// Volumes live in Config.Dir/<pod uid>/volumes/<name>; what must not reach a disk (secrets, tokens,
// emptyDir with medium Memory) lives on a tmpfs below Config.MemoryDir/<pod uid>/<name>.
// All containers of a pod see the same directory, and it survives their restarts.
package volume
