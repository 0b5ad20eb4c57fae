package state

import (
	"crypto/rand"
	"encoding/hex"
	"io/fs"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// home is where a replica keeps what Raft needs, by lineage: in a directory, or, for tests, in
// memory.
type home struct {
	root *disk.Root // nil: in memory
	mem  map[string]stores
	cur  disk.Current // in memory: what is followed
}

func newHome(cfg Config) (*home, error) {
	if cfg.Dir == "" {
		return &home{mem: map[string]stores{}}, nil
	}
	root, err := disk.Take(disk.Config{Dir: cfg.Dir, Log: cfg.Log, Segment: cfg.segment})
	if err != nil {
		return nil, err
	}
	return &home{root: root}, nil
}

func (h *home) close() error {
	if h.root == nil {
		return nil
	}
	return h.root.Close()
}

// open opens the lineage that is followed; fs.ErrNotExist: none is yet.
func (h *home) open() (stores, error) {
	if h.root != nil {
		d, err := h.root.Open()
		if err != nil {
			return stores{}, err
		}
		return onDisk(d), nil
	}
	st, ok := h.mem[h.cur.Lineage]
	if !ok {
		return st, fs.ErrNotExist
	}
	st.cur = h.cur
	return st, nil
}

// begin makes new stores, filled by init, the ones that are followed.
func (h *home) begin(next disk.Current, init func(stores) error) (stores, error) {
	if h.root != nil {
		d, err := h.root.Begin(next, func(d *disk.Disk) error { return init(onDisk(d)) })
		if err != nil {
			return stores{}, err
		}
		return onDisk(d), nil
	}
	log := raft.NewInmemStore()
	st := stores{cur: next, logs: log, stable: log, snaps: raft.NewInmemSnapshotStore()}
	if err := init(st); err != nil {
		return st, err
	}
	h.mem[next.Lineage], h.cur = st, next
	return st, nil
}

// former opens the lineage that this replica came from.
func (h *home) former(cur disk.Current) (stores, error) {
	if h.root != nil {
		d, err := h.root.Former(cur)
		if err != nil {
			return stores{}, err
		}
		return onDisk(d), nil
	}
	return h.mem[cur.Former.Lineage], nil
}

// settle forgets the former lineage.
func (h *home) settle(cur disk.Current) error {
	if h.root != nil {
		return h.root.Settle(cur)
	}
	h.cur.Former = nil
	h.mem = map[string]stores{cur.Lineage: h.mem[cur.Lineage]}
	return nil
}

// retreat goes back to the former lineage; the other one's stores are closed.
func (h *home) retreat(cur disk.Current) error {
	if h.root != nil {
		return h.root.Retreat(cur)
	}
	h.cur = h.mem[cur.Former.Lineage].cur
	return nil
}

func randomName(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
