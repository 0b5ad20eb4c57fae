package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/home"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// Export writes the state at one revision, for Import. Writes go on meanwhile.
func (s *Store) Export(w io.Writer) error {
	if err := home.Export(s.machine(), w); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	return nil
}

// Import fills Config.Dir, which must hold no state, with what Export wrote. It begins a new
// lineage: revisions jump, so none names what it named before.
func Import(ctx context.Context, cfg Config, from io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("import state into %s: %w", cfg.Dir, err)
		}
	}()
	body, err := home.ReadExport(from)
	if err != nil {
		return err
	}
	m := newMachine(cfg.withDefaults(), "")
	if err := m.Restore(io.NopCloser(bytes.NewReader(body))); err != nil {
		return err
	}
	next, err := fork(cfg, m, m.Point())
	if err != nil {
		return err
	}
	h, err := cfg.take()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if st, err := h.Open(); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = errors.Join(errors.New("there is state already: move it away first"), st.Close())
		}
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	st, err := h.Begin(next, func(st home.Stores) error { return st.Fill(m, max(m.Applied(), 1), self(cfg, next)) })
	if err != nil {
		return err
	}
	return st.Close()
}

// ReadExport returns what an Export holds, without a store. Any input is safe.
func ReadExport(from io.Reader) (View, error) {
	body, err := home.ReadExport(from)
	if err != nil {
		return View{}, err
	}
	m := newMachine(Config{Log: slog.New(slog.DiscardHandler)}.withDefaults(), "")
	if err := m.Restore(io.NopCloser(bytes.NewReader(body))); err != nil {
		return View{}, fmt.Errorf("read exported state: %w", err)
	}
	return m.View(), nil
}

// newMachine makes an empty machine of a lineage.
func newMachine(cfg Config, id string) *machine.Machine {
	return machine.New(machine.Config{Log: cfg.Log, Retain: cfg.Retain, Now: cfg.Lab.Now, Lineage: machine.Lineage{ID: id}})
}

// newServer names a replica of this node that has never been.
func newServer(cfg Config) string { return lineage.ServerName(cfg.NodeID, home.RandomName(4)) }

// self is this replica as the first voter of a lineage.
func self(cfg Config, cur disk.Current) raft.Server {
	to := raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(cur.Server), Address: raftnet.SoloAddr}
	if cfg.Network != nil {
		to.Address = raftnet.Address(cfg.Addr, cur.Server)
	}
	return to
}

const maxJump = 1 << 24

// fork turns a machine's history into that of a new lineage.
func fork(cfg Config, m *machine.Machine, shared machine.Point) (disk.Current, error) {
	next := disk.Current{Lineage: home.RandomName(8), Server: newServer(cfg)}
	o := machine.Fork{ID: next.Lineage, Born: hlc.At(cfg.Lab.Now()), Jump: 1 + rand.Uint64N(maxJump), Shared: shared}
	err := m.Fork(o)
	if errors.Is(err, machine.ErrExhausted) {
		o.Jump = 1
		err = m.Fork(o)
	}
	return next, err
}
