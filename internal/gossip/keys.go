package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

const keySize = 32 // AES-256

// ringOf copies the keys, each once.
func ringOf(keys [][]byte) ([][]byte, error) {
	if len(keys) == 0 {
		return nil, errors.New("gossip: no key is given, at least one is needed")
	}
	var ring [][]byte
	for i, k := range keys {
		if len(k) != keySize {
			return nil, fmt.Errorf("gossip: key %d has %d bytes, must have %d", i, len(k), keySize)
		}
		if !holds(ring, k) {
			ring = append(ring, bytes.Clone(k))
		}
	}
	return ring, nil
}

func holds(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// Keys returns the keys in use, the one that seals first.
func (g *Gossip) Keys() [][]byte {
	g.rotating.Lock()
	defer g.rotating.Unlock()
	return cloneAll(g.ring.GetKeys())
}

func cloneAll(keys [][]byte) [][]byte {
	out := make([][]byte, 0, len(keys))
	for _, k := range keys {
		out = append(out, bytes.Clone(k))
	}
	return out
}

// SetKeys makes these the keys: the first one seals, all of them open. A key is rotated without
// losing anybody in three steps, each of which has reached every member before the next: the new key
// behind the old one, before it, without the old one.
func (g *Gossip) SetKeys(keys [][]byte) error {
	want, err := ringOf(keys)
	if err != nil {
		return err
	}
	g.rotating.Lock()
	defer g.rotating.Unlock()
	return turn(g.ring, want)
}

// turn brings a ring to the wanted keys, in their order. The ring's readers share its slice, and
// RemoveKey moves what is behind the removed key within that slice: so the keys to be removed are
// first brought to the end.
func turn(ring *memberlist.Keyring, want [][]byte) error {
	for _, k := range want {
		if err := ring.AddKey(k); err != nil {
			return fmt.Errorf("add gossip key: %w", err)
		}
	}
	if !slices.EqualFunc(want, ring.GetKeys()[:len(want)], bytes.Equal) {
		for _, k := range slices.Backward(want) { // each goes before those that went before
			if err := ring.UseKey(k); err != nil {
				return fmt.Errorf("use gossip key: %w", err)
			}
		}
	}
	for _, k := range slices.Backward(ring.GetKeys()[len(want):]) {
		if err := ring.RemoveKey(k); err != nil {
			return fmt.Errorf("remove gossip key: %w", err)
		}
	}
	return nil
}
