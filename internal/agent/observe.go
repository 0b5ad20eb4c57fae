package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/agent/ledger"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/agent/worker"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// meetEvery is how often, at most, a Podman that cannot be used at start is asked again.
const meetEvery = 5 * time.Second

// callTimeout bounds one call to Podman or to the API server.
const callTimeout = 30 * time.Second

const (
	// relistBusy is how often the containers are listed while a permanent service is there to ask,
	// relistIdle otherwise: starting a service only to hear nothing new is not worth more.
	relistBusy = time.Minute
	relistIdle = 5 * time.Minute
	// relistBlind is how often while exits are not reported.
	relistBlind = 5 * time.Second
	// maxLog is how large a log grows before it is rotated, keepLogs how many old parts are kept.
	maxLog   = 10 << 20
	keepLogs = 4
)

// meet waits for Podman and reads everything of ours that is in it.
func (a *Agent) meet(ctx context.Context) error {
	delay := time.Second
	for {
		err := a.inventory(ctx)
		if err == nil {
			return nil
		}
		a.trouble(err)
		a.cfg.Log.Warn("podman cannot be used yet", "err", err)
		if !sleep(ctx, delay) {
			return ctx.Err()
		}
		delay = min(2*delay, meetEvery)
	}
}

func (a *Agent) inventory(ctx context.Context) error {
	info, err := a.cfg.Runtime.Info(ctx)
	if err != nil {
		return err
	}
	a.keeper.Learn(info)
	a.info = info
	if a.host.Volumes == nil {
		a.host.Volumes = a.volumes()
	}
	pods, err := a.cfg.Runtime.Pods(ctx, a.labels())
	if err != nil {
		return err
	}
	for i := range pods {
		if id, ok := podspec.Identify(pods[i].Labels); ok {
			a.host.Groups.Add(types.UID(id.UID), ledger.Group{ID: pods[i].ID, Boot: id.BootID})
		}
	}
	return a.relist(ctx)
}

// labels select what is this node's: of this data directory, whatever the node is called. Another
// node of the same name may run on this machine, and after a change of name ours is still ours.
func (a *Agent) labels() map[string]string {
	return map[string]string{podspec.LabelDataDir: a.cfg.DataDir}
}

// relist reads all containers and wakes the pods for which that is news.
func (a *Agent) relist(ctx context.Context) error {
	begun := a.cfg.Now()
	list, err := a.cfg.Runtime.Containers(ctx, a.labels())
	if err != nil {
		return err
	}
	for uid := range a.host.Ledger.Replace(list, begun) {
		a.poke(uid)
	}
	return nil
}

// observe keeps the knowledge of containers current until ctx ends: exit files tell of ends within
// milliseconds, what they leave open is asked for, and a slow list corrects what they missed.
func (a *Agent) observe(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.hearExits(ctx) })
	g.Go(func() error { return a.dispel(ctx) })
	g.Go(func() error {
		last := a.cfg.Now()
		for sleep(ctx, relistBusy) {
			a.host.Objects.Expire()
			a.rotateLogs(ctx)
			if a.host.Ledger.Running() == 0 || a.cfg.Socket == "" && a.cfg.Now().Sub(last) < relistIdle {
				continue
			}
			last = a.cfg.Now()
			if err := a.relist(ctx); err != nil {
				a.trouble(err)
			}
		}
		return ctx.Err()
	})
	return g.Wait()
}

// hearExits takes hints of containers that ended until ctx does. Without them (no inotify instance
// left, say) ends are learned from lists alone, made more often.
func (a *Agent) hearExits(ctx context.Context) error {
	for {
		err := a.exits(ctx, a.hear)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.cfg.Log.Error("ends of containers are not reported", "err", err)
		if err := a.relist(ctx); err != nil {
			a.trouble(err)
		}
		if !sleep(ctx, relistBlind) {
			return ctx.Err()
		}
	}
}

func (a *Agent) exits(ctx context.Context, fn func(podman.Exit)) error {
	if a.cfg.Exits != nil {
		return a.cfg.Exits(ctx, fn)
	}
	return podman.WatchExits(ctx, a.info.ExitsDir, fn)
}

// leftovers are the pods of which anything is on this host.
func (a *Agent) leftovers(ctx context.Context) map[types.UID]bool {
	out := a.host.Ledger.UIDs()
	for _, uid := range a.host.Groups.UIDs() {
		out[uid] = true
	}
	attached, err := a.cfg.Network.List(ctx)
	if err != nil {
		a.cfg.Log.Warn("list pod networks", "err", err)
	}
	for _, at := range attached {
		out[types.UID(at.ID)] = true
	}
	volumes, err := a.host.Volumes.List()
	if err != nil {
		a.cfg.Log.Warn("list volumes", "err", err)
	}
	for _, uid := range volumes {
		out[uid] = true
	}
	logs, err := os.ReadDir(filepath.Join(a.cfg.DataDir, "logs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.cfg.Log.Warn("list logs", "err", err)
	}
	for _, d := range logs {
		if i := strings.LastIndexByte(d.Name(), '_'); i >= 0 {
			out[types.UID(d.Name()[i+1:])] = true
		}
	}
	return out
}

// rotateLogs begins new files for containers whose logs have grown large.
func (a *Agent) rotateLogs(ctx context.Context) {
	a.mu.Lock()
	workers := make([]*worker.Worker, 0, len(a.workers))
	for _, w := range a.workers {
		workers = append(workers, w)
	}
	a.mu.Unlock()
	for _, w := range workers {
		pod := w.Pod()
		if pod == nil {
			continue
		}
		for _, c := range a.host.Ledger.Of(pod.UID) {
			path := worker.LogPath(a.cfg.DataDir, pod, c)
			if st, err := os.Stat(path); err != nil || c.State != plan.Running || st.Size() < maxLog {
				continue
			}
			if err := a.rotate(ctx, c.ID, path); err != nil {
				a.cfg.Log.Debug("rotate log", "path", path, "err", err)
			}
		}
	}
}

func (a *Agent) rotate(ctx context.Context, id, path string) error {
	e, ok := a.host.Ledger.Get(id)
	if !ok {
		return errNotOurs
	}
	if e.Static == "" {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		x, err := a.cfg.Runtime.Inspect(ctx, id)
		if err != nil {
			return err
		}
		e.Static = x.StaticDir
		a.host.Ledger.Update(id, func(o *ledger.Entry) { o.Static = x.StaticDir })
	}
	for n := keepLogs; n > 1; n-- {
		older, newer := fmt.Sprintf("%s.%d", path, n), fmt.Sprintf("%s.%d", path, n-1)
		if err := os.Rename(newer, older); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return podman.RotateLog(e.Static, path, path+".1")
}

// trouble takes note of an error: when Podman is away the node is not ready.
func (a *Agent) trouble(err error) {
	if errors.Is(err, podman.ErrUnavailable) {
		a.keeper.Doubt()
	}
}

// recovered is called when Podman answers again: what happened meanwhile is read first.
func (a *Agent) recovered(ctx context.Context) {
	if info, err := a.cfg.Runtime.Info(ctx); err == nil {
		a.keeper.Learn(info) // it may have been away to be upgraded
	}
	if a.started() {
		if err := a.relist(ctx); err != nil {
			a.cfg.Log.Warn("list containers", "err", err)
		}
	}
	a.pokeAll()
}

func (a *Agent) started() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.life != nil
}
