package openapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// buildTimeout bounds one run of the child process; it takes about three seconds.
	buildTimeout = 2 * time.Minute
	// lookInterval is how often a request that waits for a document looks for it.
	lookInterval = 20 * time.Millisecond
	// calm is the nice value of a child that nobody waits for.
	calm = 5
)

// builds has a child process write the documents of this binary: soon after its first start, so that
// the first kubectl need not wait for them, or when they are asked for before that.
type builds struct {
	dir     string // of this binary's documents
	command []string
	log     *slog.Logger
	wanted  chan struct{} // wakes run

	mu      sync.Mutex
	current *build // nil when no child is wanted or running
}

type build struct {
	done chan struct{}
	err  error // set before done is closed
}

func newBuilds(dir string, command []string, log *slog.Logger) *builds {
	return &builds{dir: dir, command: command, log: log, wanted: make(chan struct{}, 1)}
}

// documents returns the directory of one part ("v2", "v3") once it is there.
func (b *builds) documents(ctx context.Context, part string) (string, error) {
	dir := filepath.Join(b.dir, part)
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for asked := false; ; asked = true {
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		}
		current := b.ask()
		select {
		case <-current.done:
			if current.err != nil {
				return "", current.err
			}
			if _, err := os.Stat(dir); err != nil && asked {
				return "", fmt.Errorf("the child process did not write the OpenAPI documents: %w", err)
			}
		case <-tick.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// ask returns the build that runs or is about to.
func (b *builds) ask() *build {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current == nil {
		b.current = &build{done: make(chan struct{})}
		b.wanted <- struct{}{} // has room: only one build is wanted at a time
	}
	return b.current
}

// complete tells that nothing is left to build.
func (b *builds) complete() bool {
	for _, part := range []string{"v3", "v2"} {
		if _, err := os.Stat(filepath.Join(b.dir, part)); err != nil {
			return false
		}
	}
	return true
}

// run starts children until ctx ends; the first one when idle is closed, if documents are missing.
func (b *builds) run(ctx context.Context, idle <-chan struct{}) {
	for {
		nice := 0
		select {
		case <-b.wanted:
		case <-idle:
			idle = nil
			if b.complete() {
				continue
			}
			b.ask()
			<-b.wanted
			nice = calm
		case <-ctx.Done():
			return
		}
		err := b.build(ctx, nice)
		b.mu.Lock()
		b.current.err = err
		close(b.current.done)
		b.current = nil
		b.mu.Unlock()
	}
}

func (b *builds) build(ctx context.Context, nice int) error {
	if err := b.sweep(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	start := time.Now()
	// The child is killed when the thread that started it ends: keep the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	args := append(b.command[1:len(b.command):len(b.command)], b.dir)
	cmd := exec.CommandContext(ctx, b.command[0], args...) // #nosec G204 -- our own program
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("build OpenAPI in a child process: %w", err)
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, nice) // a courtesy
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("build OpenAPI in a child process: %w: %s", err, bytes.TrimSpace(text.Bytes()))
	}
	b.log.Info("built the OpenAPI documents", "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// sweep removes documents of other binaries and what a killed child left behind.
func (b *builds) sweep() error {
	parent := filepath.Dir(b.dir)
	old, err := filepath.Glob(filepath.Join(parent, "*"))
	if err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(b.dir, ".building-*"))
	if err != nil {
		return err
	}
	for _, path := range append(old, left...) {
		if path != b.dir {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return errors.Join(err, os.MkdirAll(parent, 0o700))
}

// binaryID identifies this program's code: the Go build id, else size and time of the file.
func binaryID() string {
	id := "unknown"
	if exe, err := os.Executable(); err == nil {
		if info, err := os.Stat(exe); err == nil {
			id = fmt.Sprint(info.Size(), info.ModTime().UnixNano())
		}
		if note, err := buildID(exe); err == nil {
			id = note
		}
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

func buildID(exe string) (string, error) {
	f, err := elf.Open(exe)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	s := f.Section(".note.go.buildid")
	if s == nil {
		return "", errors.New("no build id")
	}
	data, err := s.Data()
	return string(data), err
}
