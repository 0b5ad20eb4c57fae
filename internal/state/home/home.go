package home

import (
	"errors"
	"io/fs"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// Home is where a replica keeps what Raft needs, by lineage: in a directory, or, for tests, in
// memory.
type Home struct {
	cfg  disk.Config
	root *disk.Root // nil: in memory
	mem  map[string]Stores
	cur  disk.Current // in memory: what is followed
}

// Take takes a directory; an empty one stands for memory.
func Take(c disk.Config) (*Home, error) {
	if c.Dir == "" {
		return &Home{mem: map[string]Stores{}}, nil
	}
	root, err := disk.Take(c)
	if err != nil {
		return nil, err
	}
	return &Home{cfg: c, root: root}, nil
}

// Close gives the directory back.
func (h *Home) Close() error {
	if h.root == nil {
		return nil
	}
	return h.root.Close()
}

// Open opens the lineage that is followed; fs.ErrNotExist: none is yet.
func (h *Home) Open() (Stores, error) {
	if h.root != nil {
		d, err := h.root.Open()
		return h.opened(d, err)
	}
	st, ok := h.mem[h.cur.Lineage]
	if !ok {
		return st, fs.ErrNotExist
	}
	st.Current = h.cur
	return st, nil
}

func (h *Home) opened(d *disk.Disk, err error) (Stores, error) {
	if err != nil {
		return Stores{}, err
	}
	if err := h.forget(); err != nil {
		return Stores{}, errors.Join(err, d.Close())
	}
	return onDisk(d), nil
}

// Begin makes new stores, filled by init, the ones that are followed.
func (h *Home) Begin(next disk.Current, init func(Stores) error) (Stores, error) {
	if h.root != nil {
		d, err := h.root.Begin(next, func(d *disk.Disk) error { return init(onDisk(d)) })
		return h.opened(d, err)
	}
	log := raft.NewInmemStore()
	st := Stores{Current: next, Logs: log, Stable: log, Snaps: raft.NewInmemSnapshotStore()}
	if err := init(st); err != nil {
		return st, err
	}
	h.mem[next.Lineage], h.cur = st, next
	return st, nil
}

// Former opens the lineage that this replica came from.
func (h *Home) Former(cur disk.Current) (Stores, error) {
	if h.root != nil {
		d, err := h.root.Former(cur)
		if err != nil {
			return Stores{}, err
		}
		return onDisk(d), nil
	}
	return h.mem[cur.Former.Lineage], nil
}

// Settle forgets the former lineage.
func (h *Home) Settle(cur disk.Current) error {
	if h.root != nil {
		return h.root.Settle(cur)
	}
	h.cur.Former = nil
	h.mem = map[string]Stores{cur.Lineage: h.mem[cur.Lineage]}
	return nil
}

// Retreat goes back to the former lineage; the other one's stores are closed.
func (h *Home) Retreat(cur disk.Current) error {
	if h.root != nil {
		return h.root.Retreat(cur)
	}
	h.cur = h.mem[cur.Former.Lineage].Current
	return nil
}
