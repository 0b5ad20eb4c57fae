package machine

import (
	"bytes"
	"testing"
)

// What is withheld does not reach the other lineage; everything else does, deletions too.
func TestWithheldEntriesAreNotHandedOver(t *testing.T) {
	m := machineOf("a")
	write(t, m, 1, "/gone", "x")
	write(t, m, 2, "/kept", "here")
	write(t, m, 3, "/afar", "there")
	write(t, m, 4, "/gone", "")
	changes := m.Changes(Point{})
	changes.Withhold = func(key string, value []byte) bool { return key == "/afar" && bytes.Equal(value, []byte("there")) }
	chunk, last := changes.Next(1 << 20)
	all, err := decodeChunk(chunk)
	if err != nil || !last {
		t.Fatalf("chunk: %v, last %v", err, last)
	}
	keys := map[string]bool{}
	for _, c := range all {
		keys[c.key] = true
	}
	if len(keys) != 2 || !keys["/kept"] || !keys["/gone"] {
		t.Errorf("handed over: %v", keys)
	}
}
