package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/apiserver"
	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/node/pair"
	"github.com/podman-swarm/podman-swarm/internal/node/preflight"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
	"github.com/podman-swarm/podman-swarm/internal/version"
)

// host is what a node knows of the machine before anything runs.
type host struct {
	cfg    Config
	log    *slog.Logger
	dir    *datadir.Dir
	runDir string
	netd   []string // command line of the network helper
	me     *self
	known  bool         // the data directory is that of a member already
	wish   netip.Prefix // --pod-cidr, when it was said
	// services is --service-cidr, when it was said.
	services string
}

// prepare checks the machine and takes possession of the data directory.
func prepare(cfg Config, log *slog.Logger) (*host, error) {
	preflight.CompletePath()
	if !cfg.hollow() {
		if err := preflight.Programs(rootless()); err != nil {
			return nil, err
		}
	}
	dir, err := datadir.Open(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if cfg.DataDir, err = filepath.EvalSymlinks(cfg.DataDir); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory: %w", err), dir.Undo())
	}
	runDir, err := preflight.RuntimeDir(cfg.DataDir, rootless())
	if err != nil {
		return nil, errors.Join(err, dir.Undo())
	}
	helper, err := netdCommand(dir.File("run"))
	if err != nil {
		return nil, errors.Join(err, dir.Undo())
	}
	h := &host{cfg: cfg, log: log, dir: dir, runDir: runDir, netd: helper}
	if err := h.recall(); err != nil {
		return nil, errors.Join(err, h.undo())
	}
	return h, nil
}

// undo lets go of the data directory, without what was made on this machine since prepare.
func (h *host) undo() error {
	_ = os.Remove(h.runDir) // nobody's if it is empty, and the one above it as well
	_ = os.Remove(filepath.Dir(h.runDir))
	return h.dir.Undo()
}

// localURL is the API as programs on this machine reach it.
func (h *host) localURL() string {
	addr := netip.MustParseAddrPort(h.cfg.APIAddr)
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	}
	return "https://" + addr.String()
}

func (h *host) apiConfig(c *cluster, streams *pair.Listener, pods network) apiserver.Config {
	return apiserver.Config{
		DataDir:         h.cfg.DataDir,
		Listen:          h.cfg.APIAddr,
		Advertise:       netip.MustParseAddr(h.cfg.AdvertiseAddr),
		NodeName:        h.cfg.NodeName,
		Log:             h.log.With("part", "api"),
		Store:           c.store,
		PKI:             c.keys,
		ServiceCIDR:     netip.MustParsePrefix(h.cfg.ServiceCIDR),
		Refuse:          c.refuse,
		Nodes:           nodeStreams{streams, c},
		Dial:            c.dialer(pods),
		Extra:           map[string]http.Handler{swarm.Prefix: &c.ops},
		ExtraLong:       swarm.LongRunning(),
		TLSCertFile:     h.cfg.TLSCert,
		TLSKeyFile:      h.cfg.TLSKey,
		AuditPolicyFile: h.cfg.AuditPolicyFile,
		AuditLogPath:    h.cfg.AuditLogPath,
		Version:         version.Swarm(),
	}
}

// openPodman returns a client of this machine's Podman. A socket that was asked for must answer now;
// otherwise the service is started when it is needed, and leaves when it is not.
func openPodman(ctx context.Context, h *host) (*podman.Client, error) {
	client := podman.New(podman.Config{Socket: h.cfg.PodmanSocket, RunDir: h.runDir, Log: h.log.With("part", "podman")})
	if h.cfg.PodmanSocket == "" {
		return client, nil
	}
	if err := client.Ping(ctx); err != nil {
		return nil, fmt.Errorf("--podman-socket: %w", err)
	}
	return client, nil
}

// servePprof serves Go's profiles until ctx ends, if an address was given.
func servePprof(ctx context.Context, addr string, log *slog.Logger) error {
	if addr == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("--pprof-addr: %w", err)
	}
	log.Info("profiles are served", "url", "http://"+listener.Addr().String()+"/debug/pprof/")
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
