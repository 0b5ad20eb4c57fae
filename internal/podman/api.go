package podman

import (
	"errors"
	"io"
	"time"
)

// Errors a caller branches on; test with errors.Is.
var (
	ErrNotFound    = errors.New("podman: not found")
	ErrConflict    = errors.New("podman: conflict")
	ErrUnavailable = errors.New("podman: service unavailable")
)

// Info is what the agent needs to know of the Podman behind a socket.
type Info struct {
	Version                        string // e.g. "5.4.2"
	Rootless                       bool
	CgroupVersion                  string   // "v1" | "v2"
	CgroupControllers              []string // controllers usable by containers
	OCIRuntime                     string   // e.g. "crun"
	GraphRoot                      string   // where images and containers live
	RunRoot                        string   // where their volatile state lives
	ExitsDir                       string   // where conmon leaves exit files: see WatchExits
	Kernel, OS, Distribution, Arch string
	MemTotal                       int64 // bytes
	CPUs                           int
	MaxUID                         int64 // largest user ID a container can have; 0 = any
	Seccomp, SELinux, AppArmor     bool
	MinOOMScoreAdj                 int // the lowest OOM score this user may give a container
}

// Image is a local image.
type Image struct {
	ID          string // sha256 hex, no prefix
	RepoTags    []string
	RepoDigests []string
	Size        int64
	User        string
	Env         []string
	Entrypoint  []string
	Cmd         []string
	WorkingDir  string
	StopSignal  string
	Volumes     []string
	Created     time.Time
	Labels      map[string]string
	Containers  int // using it; only set by Images
}

// Auth are registry credentials for one pull.
type Auth struct{ Username, Password, IdentityToken string }

// ContainerState is the life of a container as Podman tells it.
type ContainerState string

// States of a container; libpod's own words.
const (
	Created  ContainerState = "created"
	Running  ContainerState = "running"
	Paused   ContainerState = "paused"
	Stopping ContainerState = "stopping"
	Exited   ContainerState = "exited" // includes libpod's "stopped"
	Unknown  ContainerState = "unknown"
)

// Container is what inspection tells of a container. One that a power failure ended is Exited with code 0 and without
// Finished. Entries of a list lack OOMKilled, Error, LogPath and
// StaticDir, and their times are whole seconds.
type Container struct {
	ID, Name  string
	PodID     string
	Labels    map[string]string
	State     ContainerState
	Pid       int
	ExitCode  int32
	OOMKilled bool
	Error     string
	Created   time.Time
	Started   time.Time
	Finished  time.Time
	ImageID   string
	Image     string // the name it was created from
	LogPath   string
	StaticDir string // Podman's directory of this container; <StaticDir>/shm is its /dev/shm
	Infra     bool   // a pod's infra container
}

// Pod is a Podman pod.
type Pod struct {
	ID, Name   string
	Labels     map[string]string
	State      string // libpod's word: Created, Running, Degraded, Exited, Stopped ...
	Created    time.Time
	InfraID    string
	Containers []string // IDs
}

// Stats is what a running container uses. Rootless on cgroup v1 there are none.
type Stats struct {
	ID          string
	CPU         time.Duration // since its start
	Memory      uint64        // bytes, page cache included
	MemoryLimit uint64
	Pids        uint64
	BlockIn     uint64 // bytes read from block devices
	BlockOut    uint64
}

// Size of a terminal in characters.
type Size struct{ Width, Height uint16 }

// ExecConfig is one command in a running container. Nil streams are not attached. With TTY everything arrives on
// Stdout. Resize may be nil; its first value, when ready, is the size the terminal starts with.
type ExecConfig struct {
	Cmd            []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size
}

// AttachConfig attaches to the streams of a running container's first process. TTY must say what the container was
// created with.
type AttachConfig struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size
}

// Exit is the end of a container's first process, as conmon recorded it. One without an ID says that
// ends may have gone unheard: look at every container.
type Exit struct {
	ID     string
	Code   int32
	At     time.Time
	Unread bool // it ended, but the record was gone before it was read: ask Podman for code and time
}
