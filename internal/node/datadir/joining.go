package datadir

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// JoiningFile is there while a node joins: should it be cut off, the next try is known by its key.
const JoiningFile = "joining.json"

// Joining is what a node that joins is known by.
type Joining struct {
	Name string `json:"name"`
	Key  []byte `json:"key"` // PEM
}

// Joining tells whether a node was about to join.
func (d *Dir) Joining() bool {
	_, err := os.Lstat(d.File(JoiningFile))
	return err == nil
}

// Join returns what an interrupted try of the node was known by, or begins one, which is new.
func (d *Dir) Join(name string) (try Joining, begun bool, err error) {
	data, err := os.ReadFile(d.File(JoiningFile))
	if err == nil && json.Unmarshal(data, &try) == nil && try.Name == name {
		return try, false, nil
	}
	if try.Key, err = pki.NewNodeKey(); err != nil {
		return try, false, err
	}
	try.Name = name
	if data, err = json.Marshal(try); err != nil {
		return try, false, err
	}
	return try, true, pki.WriteFile(d.File(JoiningFile), data)
}

// Joined forgets the try.
func (d *Dir) Joined() error {
	if err := os.Remove(d.File(JoiningFile)); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}
