package playdead

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/node/logs"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// Command is the word that makes the program play dead: podman-swarm drill-sleep FLAGS -- ARGV.
const Command = "drill-sleep"

// Death is how an agent dies, and what it becomes again.
type Death struct {
	Pause   time.Duration // from now to the new start
	DataDir string
	RunDir  string
	Socket  string   // of Podman, as the agent was told
	Hollow  bool     // there are no containers
	Program string   // the agent's file
	Args    []string // the agent's command line, its name included
}

// Prepare makes sure that nothing of this process will outlive it. After that Begin cannot fail for
// want of anything but memory.
func Prepare() error {
	// Everything Go opens is closed on exec; what this process has inherited may not be.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors on exec: %w", err)
	}
	return nil
}

// Begin kills the agent, which is this process. It returns only when it could not.
func (d Death) Begin() error {
	// Not the agent's file, which an upgrade may have replaced: the words are this release's.
	const self = "/proc/self/exe"
	return fmt.Errorf("play dead: %w", syscall.Exec(self, d.command(), os.Environ()))
}

func (d Death) command() []string {
	return append([]string{
		"podman-swarm", Command, "--for=" + d.Pause.String(), "--data-dir=" + d.DataDir, "--run-dir=" + d.RunDir,
		"--podman-socket=" + d.Socket, fmt.Sprintf("--hollow=%t", d.Hollow), "--program=" + d.Program, "--",
	}, d.Args...)
}

func parse(args []string) (Death, error) {
	var d Death
	f := flag.NewFlagSet(Command, flag.ContinueOnError)
	f.DurationVar(&d.Pause, "for", 0, "how long")
	f.StringVar(&d.DataDir, "data-dir", "", "the agent's")
	f.StringVar(&d.RunDir, "run-dir", "", "the agent's")
	f.StringVar(&d.Socket, "podman-socket", "", "the agent's")
	f.BoolVar(&d.Hollow, "hollow", false, "there are no containers")
	f.StringVar(&d.Program, "program", "", "the agent's file")
	if err := f.Parse(args); err != nil {
		return d, err
	}
	d.Args = f.Args()
	if d.Program == "" || d.DataDir == "" || len(d.Args) == 0 {
		return d, fmt.Errorf("%s is what an agent becomes during a drill: run psctl swarm drill", Command)
	}
	return d, nil
}

// Main is the program that an agent becomes: args are what follows Command. When ctx ends first (the
// service was stopped meanwhile) no agent is started.
func Main(ctx context.Context, args []string) error {
	d, err := parse(args)
	if err != nil {
		return err
	}
	end := time.NewTimer(d.Pause)
	defer end.Stop()
	log := logs.New("info").With("part", "drill")
	log.Warn("this node plays dead: a drill", "for", d.Pause)
	// Who resets or starts this node meanwhile is told that it is in use.
	lock, err := datadir.Open(d.DataDir)
	if err != nil {
		return fmt.Errorf("play dead: %w", err)
	}
	if !d.Hollow {
		killing, cancel := context.WithTimeout(ctx, d.Pause)
		if err := d.killPods(killing, log); err != nil {
			log.Warn("kill the pods of this node", "err", err)
		}
		cancel()
	}
	select {
	case <-end.C:
	case <-ctx.Done():
		return lock.Close()
	}
	log.Warn("this node starts again: the drill is over here")
	if err := lock.Close(); err != nil {
		return err
	}
	bury()
	return fmt.Errorf("start the agent again: %w", syscall.Exec(d.Program, d.Args, os.Environ()))
}

const (
	// kills is how many containers are killed at a time.
	kills = 16
	// killPoll is the pause between two looks for containers that still run.
	killPoll = 100 * time.Millisecond
)

// killPods kills the containers of this node until none runs.
func (d Death) killPods(ctx context.Context, log *slog.Logger) error {
	client := podman.New(podman.Config{Socket: d.Socket, RunDir: d.RunDir, Log: log})
	defer client.Close() //nolint:errcheck // it leaves by itself when idle
	for {
		left, err := killAll(ctx, client, d.DataDir)
		if left == 0 && err == nil {
			return nil
		}
		select {
		case <-time.After(killPoll):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d containers still run", left), err)
		}
	}
}

// containers is what of Podman is needed here.
type containers interface {
	Containers(ctx context.Context, labels map[string]string) ([]podman.Container, error)
	Kill(ctx context.Context, id, signal string) error
}

// killAll kills what runs of a data directory's containers; left is how many there were.
func killAll(ctx context.Context, client containers, dataDir string) (left int, err error) {
	list, err := client.Containers(ctx, map[string]string{podspec.LabelDataDir: dataDir})
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, kills)
	for _, c := range list {
		if c.State != podman.Running && c.State != podman.Paused && c.State != podman.Stopping {
			continue
		}
		left++
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if e := client.Kill(ctx, c.ID, "SIGKILL"); e != nil && !errors.Is(e, podman.ErrConflict) && !errors.Is(e, podman.ErrNotFound) {
				mu.Lock()
				defer mu.Unlock()
				err = errors.Join(err, e)
			}
		})
	}
	all.Wait()
	return left, err
}

// bury takes note of the children that ended while nobody waited for them: they are this process's
// still, and the agent would never hear of them.
func bury() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
