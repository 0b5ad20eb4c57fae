// Command scale rehearses a large swarm on one machine: real agents whose pods only pretend to run
// (--runtime=hollow), in a network of their own. It measures joining, rest, pods, writes, the loss
// of the leader and of another node, and prints each figure beside its budget: `make bench-scale`.
// All nodes share the processors of one machine: a figure says at most what one node would need.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var s scale
	var inside bool
	flag.StringVar(&s.bin, "bin", "bin/podman-swarm", "the agent's program")
	flag.StringVar(&s.out, "out", "bench/results/scale.json", "where the JSON goes")
	flag.StringVar(&s.profiles, "profiles", "", "directory for CPU and memory profiles (default none)")
	flag.IntVar(&s.nodes, "nodes", 50, "nodes, at least 3")
	flag.IntVar(&s.perNode, "pods", 30, "pods per node; 0 ends with the last idle figures")
	flag.DurationVar(&s.settle, "settle", time.Minute, "rest before idle figures are read")
	flag.DurationVar(&s.window, "window", time.Minute, "how long idle figures are taken for")
	s.rest = []int{3, 10}
	flag.Func("rest", "sizes at which idle figures are taken too, before there are pods (default 3,10)", s.setRest)
	flag.IntVar(&s.rate, "rate", 200, "writes per second on three nodes; 0: none")
	flag.BoolVar(&s.keep, "keep", false, "keep data directories and logs")
	flag.BoolVar(&inside, "inside", false, "internal: this process is in the network of its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := enter
	if inside {
		run = s.run
	}
	if err := run(ctx); err != nil {
		if !inside || !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "scale:", err)
		}
		os.Exit(1)
	}
}

func (s *scale) setRest(list string) error {
	s.rest = nil
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		s.rest = append(s.rest, n)
	}
	return nil
}

// enter runs this program again in namespaces of its own: a network whose only traffic is the
// nodes', and processes that the kernel ends with it whatever happens.
func enter(ctx context.Context) error {
	runtime.LockOSThread() // the death of a parent is that of its thread
	cmd := exec.CommandContext(ctx, "/proc/self/exe", slices.Concat([]string{"-inside"}, os.Args[1:])...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	return cmd.Wait()
}

// furnish makes the namespaces usable: their own /proc and /run, and the loopback device.
func furnish(ctx context.Context) error {
	for _, m := range []struct {
		target, kind string
		flags        uintptr
	}{
		{"/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"/proc", "proc", 0},
		{"/run", "tmpfs", 0},
	} {
		if err := syscall.Mount(m.kind, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	return nil
}

func (s *scale) run(ctx context.Context) (err error) {
	if s.nodes < writeNodes {
		return fmt.Errorf("-nodes %d: at least %d", s.nodes, writeNodes)
	}
	if err := furnish(ctx); err != nil {
		return err
	}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "swarm-scale-"); err != nil {
		return err
	}
	defer func() {
		s.end()
		if s.keep || err != nil {
			fmt.Fprintln(os.Stderr, "scale: data directories and logs are in", s.dir)
			return
		}
		err = os.RemoveAll(s.dir)
	}()
	defer func() { s.table.Print(os.Stdout) }() // also what was measured before a failure
	steps := []func(context.Context) error{s.grow}
	if s.perNode > 0 {
		steps = append(steps, s.pods, s.idleFull, s.loseLeader)
	}
	if s.perNode > 0 && s.nodes > writeNodes { // two lost of three leave a minority, which waits with others' pods
		steps = append(steps, s.loseOther)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.table.Save(s.out)
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s scale: %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}
