package podman

// ContainerSpec is the part of libpod's SpecGenerator we use. Zero fields are left to Podman.
type ContainerSpec struct {
	Name   string            `json:"name"`
	Image  string            `json:"image"` // an image ID: no name is ever resolved at creation
	Pod    string            `json:"pod,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`

	Entrypoint []string          `json:"entrypoint,omitempty"` // empty = the image's, with its command
	Command    []string          `json:"command,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	WorkDir    string            `json:"work_dir,omitempty"`
	// MakeWorkDir has Podman create a working directory the image lacks.
	MakeWorkDir bool  `json:"create_working_dir,omitempty"`
	Terminal    bool  `json:"terminal,omitempty"`
	Stdin       bool  `json:"stdin,omitempty"`
	StopSignal  int   `json:"stop_signal,omitempty"`
	StopTimeout *uint `json:"stop_timeout,omitempty"` // seconds

	Hostname string    `json:"hostname,omitempty"`
	NetNS    Namespace `json:"netns,omitzero"`
	PidNS    Namespace `json:"pidns,omitzero"`
	IpcNS    Namespace `json:"ipcns,omitzero"`
	UtsNS    Namespace `json:"utsns,omitzero"`

	UseImageHosts      bool `json:"use_image_hosts,omitempty"`
	UseImageResolvConf bool `json:"use_image_resolve_conf,omitempty"`

	Mounts          []Mount `json:"mounts,omitempty"`
	ImageVolumeMode string  `json:"image_volume_mode,omitempty"`
	ReadOnlyRootFS  bool    `json:"read_only_filesystem,omitempty"`
	// ReadWriteTmpfs keeps Podman 5 from putting writable /tmp and /run over a read-only root.
	ReadWriteTmpfs *bool `json:"read_write_tmpfs,omitempty"`

	User           string            `json:"user,omitempty"`
	Groups         []string          `json:"groups,omitempty"`
	CapAdd         []string          `json:"cap_add,omitempty"`
	CapDrop        []string          `json:"cap_drop,omitempty"`
	Privileged     bool              `json:"privileged,omitempty"`
	NoNewPrivs     bool              `json:"no_new_privileges,omitempty"`
	SeccompProfile string            `json:"seccomp_profile_path,omitempty"` // a file or "unconfined"
	SelinuxOpts    []string          `json:"selinux_opts,omitempty"`
	Unmask         []string          `json:"unmask,omitempty"`
	Sysctl         map[string]string `json:"sysctl,omitempty"`

	Resources   *Resources `json:"resource_limits,omitempty"`
	OOMScoreAdj *int       `json:"oom_score_adj,omitempty"`

	Log           LogConfig     `json:"log_configuration,omitzero"`
	RestartPolicy string        `json:"restart_policy,omitempty"`
	Health        *HealthConfig `json:"healthconfig,omitempty"`
	// Systemd "false" keeps Podman from special treatment of images whose command is an init.
	Systemd string `json:"systemd,omitempty"`
}

// Namespace says where a container's namespace comes from: "private", "host", "none", "path", "container" or "pod".
type Namespace struct {
	Mode  string `json:"nsmode,omitempty"`
	Value string `json:"value,omitempty"` // a path or a container ID
}

// Mount is one OCI mount.
type Mount struct {
	Type        string   `json:"type"`
	Source      string   `json:"source,omitempty"`
	Destination string   `json:"destination"`
	Options     []string `json:"options,omitempty"`
}

// LogConfig says where the container's output goes.
type LogConfig struct {
	Driver string `json:"driver,omitempty"`
	Path   string `json:"path,omitempty"`
	// Size is where conmon starts the file anew, in bytes: what was written before is lost. 0 = never.
	Size int64 `json:"size,omitempty"`
}

// HealthConfig is only used to switch an image's HEALTHCHECK off.
type HealthConfig struct {
	Test []string `json:"Test"`
}

// Resources are OCI limits.
type Resources struct {
	CPU    *CPU            `json:"cpu,omitempty"`
	Memory *Memory         `json:"memory,omitempty"`
	Huge   []HugepageLimit `json:"hugepageLimits,omitempty"`
}

// CPU limits.
type CPU struct {
	Shares *uint64 `json:"shares,omitempty"`
	Quota  *int64  `json:"quota,omitempty"`  // microseconds per period
	Period *uint64 `json:"period,omitempty"` // microseconds
}

// Memory limits, in bytes.
type Memory struct {
	Limit *int64 `json:"limit,omitempty"`
	// Swap is memory plus swap.
	Swap *int64 `json:"swap,omitempty"`
}

// HugepageLimit is a limit in bytes for one page size ("2MB").
type HugepageLimit struct {
	PageSize string `json:"pageSize"`
	Limit    uint64 `json:"limit"`
}

// PodSpec is the part of libpod's PodSpecGenerator we use.
type PodSpec struct {
	Name     string            `json:"name"`
	Hostname string            `json:"hostname,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	NoInfra  bool              `json:"no_infra,omitempty"`
	// Shared are the namespaces every container takes from the infra container; [] without one.
	Shared     []string  `json:"shared_namespaces"`
	InfraName  string    `json:"infra_name,omitempty"`
	NetNS      Namespace `json:"netns,omitzero"`
	ExitPolicy string    `json:"exit_policy,omitempty"`
}
