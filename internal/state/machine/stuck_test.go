package machine

import (
	"bytes"
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// entryOf is a log entry that writes a key, of a version of the program.
func entryOf(index uint64, version byte, key string) *raft.Log {
	c := Command{Key: key, Expect: Any}
	b := c.Encode()
	b[0] = version
	return &raft.Log{Index: index, Data: b}
}

// A machine that stopped before an entry gives no snapshot: Raft would file it under the last index
// that it handed over, and drop what the machine has not applied.
func TestStuckMachineGivesNoSnapshot(t *testing.T) {
	f := newMachine(Retention{})
	f.Apply(entryOf(1, writeVersion, "/a"))
	before := snapshotOf(t, f)
	if f.Stuck() != nil {
		t.Fatal(f.Stuck())
	}
	f.ApplyBatch([]*raft.Log{entryOf(2, commandVersion+1, "/b"), entryOf(3, writeVersion, "/c")})
	if s, err := f.Snapshot(); err == nil || err != f.Stuck() { //nolint:errorlint // the very one
		t.Fatalf("snapshot %v, %v; stuck: %v", s, err, f.Stuck())
	}
	// What another had before the entry does not help, what it had after does.
	for _, from := range []struct {
		snap  []byte
		stuck bool
	}{{before, true}, {snapshotAfter(t, 3), false}} {
		if err := f.Restore(io.NopCloser(bytes.NewReader(from.snap))); err != nil {
			t.Fatal(err)
		}
		if got := f.Stuck() != nil; got != from.stuck {
			t.Errorf("stuck %v, want %v", f.Stuck(), from.stuck)
		}
	}
	f.Apply(entryOf(4, writeVersion, "/d"))
	if _, err := f.Snapshot(); err != nil || f.Applied() != 4 {
		t.Errorf("applied up to %d, %v", f.Applied(), err)
	}
}

// snapshotAfter is a snapshot of a machine that has applied so many entries.
func snapshotAfter(t *testing.T, n uint64) []byte {
	t.Helper()
	f := newMachine(Retention{})
	for i := range n {
		f.Apply(entryOf(i+1, writeVersion, "/x"))
	}
	return snapshotOf(t, f)
}
