package podman

import (
	"errors"
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
	Kernel, OS, Distribution, Arch string
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

// Container is what inspection tells of a container.
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
}
