package state

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"

	"github.com/podman-swarm/podman-swarm/internal/state/home"
)

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
