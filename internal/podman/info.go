package podman

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Ping tells whether the service answers.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.call(ctx, request{method: http.MethodGet, path: "/_ping"}, nil); err != nil {
		return fmt.Errorf("ping podman: %w", err)
	}
	return nil
}

type idMap struct {
	ContainerID int64 `json:"container_id"`
	Size        int64 `json:"size"`
}

type libpodInfo struct {
	Host struct {
		Arch, Kernel, OS  string
		CgroupVersion     string
		CgroupControllers []string
		CPUs              int
		MemTotal          int64
		OCIRuntime        struct{ Name string }
		Distribution      struct{ Distribution, Version string }
		IDMappings        struct {
			UIDMap []idMap `json:"uidmap"`
		}
		Security struct {
			AppArmorEnabled, SECCOMPEnabled, SELinuxEnabled, Rootless bool
		}
	}
	Store   struct{ GraphRoot, RunRoot string }
	Version struct{ Version string }
}

// Info describes the host. It takes Podman up to a third of a second: ask once.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var in libpodInfo
	if err := c.call(ctx, request{method: http.MethodGet, path: "/info"}, &in); err != nil {
		return Info{}, fmt.Errorf("podman info: %w", err)
	}
	h := in.Host
	out := Info{
		Version: in.Version.Version, Rootless: h.Security.Rootless, CgroupVersion: h.CgroupVersion,
		CgroupControllers: h.CgroupControllers, OCIRuntime: h.OCIRuntime.Name, GraphRoot: in.Store.GraphRoot,
		RunRoot: in.Store.RunRoot, Kernel: h.Kernel, OS: h.OS, Arch: h.Arch,
		Distribution: h.Distribution.Distribution + " " + h.Distribution.Version, MemTotal: h.MemTotal, CPUs: h.CPUs,
		Seccomp: h.Security.SECCOMPEnabled, SELinux: h.Security.SELinuxEnabled, AppArmor: h.Security.AppArmorEnabled,
	}
	for _, m := range h.IDMappings.UIDMap {
		out.MaxUID = max(out.MaxUID, m.ContainerID+m.Size-1)
	}
	out.MinOOMScoreAdj = -1000
	if out.Rootless || !hasSysResource() {
		out.MinOOMScoreAdj = ownOOMScoreAdj()
	}
	out.ExitsDir = exitsDir(out.Rootless, out.RunRoot)
	return out, nil
}

// hasSysResource tells whether this process, and so a service of the same user, may lower OOM scores.
func hasSysResource() bool {
	var caps [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0])
	return err == nil && caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// ownOOMScoreAdj is the score below which a process without privileges cannot go.
func ownOOMScoreAdj() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// exitsDir is where libpod tells conmon to leave exit files: under its tmp_dir, which no endpoint names. Rootless it
// lies beside the run root in XDG_RUNTIME_DIR.
func exitsDir(rootless bool, runRoot string) string {
	if !rootless {
		return "/run/libpod/exits"
	}
	return filepath.Join(filepath.Dir(runRoot), "libpod", "tmp", "exits")
}
