package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// Membership is what makes a data directory the node it is, in MemberFile. What the swarm knows of
// its nodes is in the store; this is what must be known before the store can be opened.
type Membership struct {
	Format int `json:"format"`
	// Cluster names the swarm.
	Cluster string `json:"cluster"`
	// Name is this node's.
	Name string `json:"name"`
	// PodCIDR is this node's range, ServiceCIDR the swarm's.
	PodCIDR     string `json:"podCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	// Lineage is the history of the state to join when there is none in this directory yet; empty
	// for the node that began the swarm.
	Lineage string `json:"lineage,omitempty"`
	// Peers are addresses of other nodes, as they were known last.
	Peers []string `json:"peers,omitempty"`
	// Left says when the node left the swarm: its data is of no use any more.
	Left time.Time `json:"left,omitzero"`
}

// MemberFile is the name of its file.
const MemberFile = "member.json"

const memberFormat = 1

// LoadMembership reads the file; ok is false when there is none.
func LoadMembership(file string) (m Membership, ok bool, err error) {
	data, err := os.ReadFile(file) //nolint:gosec // our own directory
	if errors.Is(err, os.ErrNotExist) {
		return m, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, false, fmt.Errorf("%s is damaged: %w: restore the file from a backup of the data directory", file, err)
	}
	if m.Format > memberFormat {
		return m, false, fmt.Errorf("%s was written by a newer release (format %d, this one reads up to %d): run that release or a newer one", file, m.Format, memberFormat)
	}
	return m, true, nil
}

// Save writes the file.
func (m Membership) Save(file string) error {
	m.Format = memberFormat
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return pki.WriteFile(file, append(data, '\n'))
}
