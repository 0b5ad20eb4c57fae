package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/podman-swarm/podman-swarm/internal/cli/reach"
	"github.com/podman-swarm/podman-swarm/internal/node"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// local is the agent of a data directory, asked as its administrator.
type local struct {
	dir    string
	client *swarm.Client
}

func openLocal(dataDir func() (string, error)) (local, error) {
	dir, err := dataDir()
	if err != nil {
		return local{}, err
	}
	l := local{dir: dir}
	file := filepath.Join(dir, "admin.kubeconfig")
	switch _, err := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		return l, fmt.Errorf("no node has run in %s: begin a swarm with `podman-swarm init`, enter one with `podman-swarm join`, or name the --data-dir", dir)
	case err != nil:
		return l, fmt.Errorf("node in %s: %w: run this as the user whose node it is", dir, err)
	}
	l.client, err = reach.File(file)
	return l, err
}

// explain says what to do when the agent does not answer.
func (l local) explain(err error) error {
	if errors.Is(err, swarm.ErrUnreachable) {
		return fmt.Errorf("the agent of %s does not answer (%w): start it, or look at its log", l.dir, err)
	}
	return err
}

// dirFlag is what names a data directory on a command line, unless it is the default one.
func dirFlag(dir string) string {
	if dir == node.DefaultDataDir() {
		return ""
	}
	return " --data-dir " + shellWord(dir)
}
