package disk

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// faulty is a disk on which operations fail on demand.
type faulty struct {
	mu    sync.Mutex
	fault func(op Op, name string) error
	seen  []Op // of the log's files
}

func (f *faulty) probe(op Op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasSuffix(name, segmentSuffix) {
		f.seen = append(f.seen, op)
	}
	if f.fault != nil {
		return f.fault(op, name)
	}
	return nil
}

// set makes a kind of operation fail on files whose names end in suffix, after the first few.
func (f *faulty) set(kind Op, suffix string, after int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = func(op Op, name string) error {
		if op != kind || !strings.HasSuffix(name, suffix) {
			return nil
		}
		if after--; after >= 0 {
			return nil
		}
		return err
	}
}

// heal ends that, and returns what was done to the log's files.
func (f *faulty) heal() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.fault, f.seen = nil, nil
	return seen
}

// onFaulty opens a directory on a disk that can be made to fail.
func onFaulty(t *testing.T) (*taken, Config, *faulty) {
	t.Helper()
	f := &faulty{}
	c := testConfig(t.TempDir())
	c.Probe = f.probe
	return mustOpen(t, c), c, f
}

// follower runs Raft on a disk; send plays its leader.
func follower(t *testing.T, d *taken) (send func(term, prev, prevTerm uint64, n int) bool) {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID, conf.LogOutput = "b", io.Discard
	conf.HeartbeatTimeout, conf.ElectionTimeout = time.Minute, time.Minute
	addr, trans := raft.NewInmemTransport("b")
	_, leader := raft.NewInmemTransport("a")
	leader.Connect(addr, trans)
	members := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}}}
	if err := raft.BootstrapCluster(conf, d.Log, d.Meta, d.Snapshots, trans, members); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(conf, &raft.MockFSM{}, d.Log, d.Meta, d.Snapshots, trans)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown().Error() })
	return func(term, prev, prevTerm uint64, n int) bool {
		t.Helper()
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("a"), Addr: []byte("a")}
		req := &raft.AppendEntriesRequest{RPCHeader: header, Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm}
		for i := range uint64(n) {
			req.Entries = append(req.Entries, entry(prev+1+i, term, []byte("x")))
		}
		var resp raft.AppendEntriesResponse
		if err := leader.AppendEntries("b", addr, req, &resp); err != nil {
			t.Fatal(err)
		}
		return resp.Success
	}
}

// A follower drops a tail that conflicts, and the disk has no room for what comes in its place: Raft
// is to be started again, since it still believes in the tail. A write that fails otherwise is none
// of that.
func TestLogIsReopenedWhenNothingComesInPlaceOfADroppedTail(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
		d, _, disk := onFaulty(t)
		defer func() { _ = d.Close() }()
		send := follower(t, d)
		if !send(2, 1, 1, 20) { // 2 to 21
			t.Fatal("nothing can be stored")
		}
		disk.set(Write, segmentSuffix, 0, err)
		if send(2, 21, 2, 1) {
			t.Fatal("stored on a disk that fails")
		}
		if err := d.Log.Failed(); err != nil {
			t.Fatalf("reopened for nothing: %v", err)
		}
		if send(3, 5, 2, 3) { // 6 to 8 of term 3 in place of 6 to 21
			t.Fatal("stored on a disk that fails")
		}
		disk.heal()
		select {
		case <-d.Log.Broken():
		default:
			last, _ := d.Log.LastIndex()
			t.Errorf("%v: the log ends at %d and is not reopened; the leader gets on: %v", err, last, send(3, 5, 2, 3))
		}
	}
}

// What was dropped and replaced is forgotten: a later failure is one like any other.
func TestFullDiskAfterAReplacedTailHeals(t *testing.T) {
	d, _, disk := onFaulty(t)
	defer func() { _ = d.Close() }()
	send := follower(t, d)
	if !send(2, 1, 1, 20) || !send(3, 5, 2, 3) {
		t.Fatal("nothing can be stored")
	}
	disk.set(Write, segmentSuffix, 0, syscall.ENOSPC)
	if send(3, 8, 3, 1) {
		t.Fatal("stored on a full disk")
	}
	disk.heal()
	if err := d.Log.Failed(); err != nil || !send(3, 8, 3, 1) {
		t.Errorf("with room again the log does not go on: %v", err)
	}
}

// A sync fails, and only that one: what the file seems to hold from then on is not on disk. It goes when
// the log is closed; where it cannot, since the process was killed, it is written again before anybody
// may read it.
func TestWhatASyncFailedForIsNotTakenForDurable(t *testing.T) {
	for _, killed := range []bool{false, true} {
		d, cfg, disk := onFaulty(t)
		if err := d.Log.StoreLog(entry(1, 1, []byte("one"))); err != nil {
			t.Fatal(err)
		}
		disk.set(Sync, segmentSuffix, 0, syscall.EIO)
		if err := d.Log.StoreLog(entry(2, 1, []byte("two"))); err == nil {
			t.Fatal("no error")
		}
		want := uint64(1)
		disk.heal()
		if killed {
			crash(t, d)
			want = 2
		} else if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		disk.heal()
		d = mustOpen(t, cfg)
		did := disk.heal()
		if killed && !slices.Equal(did, []Op{Write, Sync, Synced}) {
			t.Errorf("the log was read, and nothing made durable: %v", did)
		}
		if last, _ := d.Log.LastIndex(); last != want {
			t.Errorf("killed %v: the log ends at %d, want %d", killed, last, want)
		}
		if err := d.Log.StoreLog(entry(want+1, 1, []byte("next"))); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Entries that the mark covers were synced once; they are not written over at every start.
func TestWhatIsKnownToBeDurableIsNotWrittenAgain(t *testing.T) {
	d, cfg, disk := onFaulty(t)
	if err := d.Log.StoreLog(entry(1, 1, []byte("one"))); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	disk.heal()
	d = mustOpen(t, cfg)
	defer d.Close()
	if did := disk.heal(); slices.Contains(did, Write) {
		t.Errorf("at the start: %v", did)
	}
}

// What was read is not used as long as it cannot be made durable, and damage is not what it is called.
func TestLogOnADiskThatFailsIsNotOpened(t *testing.T) {
	d, cfg, disk := onFaulty(t)
	if err := d.Log.StoreLog(entry(1, 1, []byte("one"))); err != nil {
		t.Fatal(err)
	}
	crash(t, d)
	for _, at := range []struct {
		op     Op
		suffix string
	}{{Write, segmentSuffix}, {Sync, segmentSuffix}, {SyncDir, logName}, {SyncDir, snapName}, {Sync, metaName}} {
		disk.set(at.op, at.suffix, 0, syscall.EIO)
		var damaged *DamageError
		if d, err := Open(cfg); err == nil || errors.As(err, &damaged) {
			t.Errorf("%+v fails: %v", at, err)
			if err == nil {
				_ = d.Close()
			}
		}
	}
	disk.heal()
	d = mustOpen(t, cfg)
	defer d.Close()
	if last, _ := d.Log.LastIndex(); last != 1 {
		t.Errorf("the log ends at %d", last)
	}
}

// "No space" means that nothing happened. When it is the sync that says so, the entry may be there.
func TestNoSpaceAtSyncIsAnUnknownOutcome(t *testing.T) {
	d, _, disk := onFaulty(t)
	defer d.Close()
	if err := d.Log.StoreLog(entry(1, 1, nil)); err != nil {
		t.Fatal(err)
	}
	disk.set(Write, segmentSuffix, 0, syscall.ENOSPC)
	if err := d.Log.StoreLog(entry(2, 1, nil)); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrFailed) {
		t.Errorf("the write failed: %v", err)
	}
	disk.set(Sync, segmentSuffix, 0, syscall.ENOSPC)
	err := d.Log.StoreLog(entry(2, 1, nil))
	if !errors.Is(err, ErrFailed) || errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space") {
		t.Errorf("the sync failed: %v", err)
	}
	disk.heal()
	if err := d.Log.StoreLog(entry(2, 1, nil)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("refused without being tried: %v", err)
	}
}

// A write fails right after its file was made, then a leader's snapshot comes, and the log goes on
// behind it: the empty file is not in the way, now or at the next start.
func TestEmptyFileBeforeASnapshotIsRemoved(t *testing.T) {
	d, cfg, disk := onFaulty(t)
	disk.set(Write, segmentSuffix, 1, syscall.ENOSPC) // the file, but not the entry
	if err := d.Log.StoreLog(entry(1, 1, nil)); !errors.Is(err, syscall.ENOSPC) || d.Log.Failed() != nil {
		t.Fatalf("%v, failed: %v", err, d.Log.Failed())
	}
	disk.heal()
	snapshot(t, d, 100)
	for i := range uint64(3) {
		if err := d.Log.StoreLog(entry(101+i, 1, nil)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		first, _ := d.Log.FirstIndex()
		last, _ := d.Log.LastIndex()
		if first != 101 || last != 103 {
			t.Errorf("the log reaches from %d to %d, want 101 to 103", first, last)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = mustOpen(t, cfg)
	}
	_ = d.Close()
}

// A file was made, but whether its name lasts is not known. Later entries must not go into the one
// before it: the next start would look for them in the new one.
func TestLogIsReopenedWhenAFileMayOrMayNotBeThere(t *testing.T) {
	d, cfg, disk := onFaulty(t)
	if err := d.Log.StoreLog(entry(1, 1, nil)); err != nil {
		t.Fatal(err)
	}
	disk.set(SyncDir, logName, 0, syscall.EIO)
	if err := d.Log.StoreLog(entry(2, 1, make([]byte, testSegment))); err == nil {
		t.Fatal("no error")
	}
	disk.heal()
	if err := d.Log.StoreLog(entry(2, 1, nil)); err == nil {
		t.Fatal("the log goes on")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(2) {
		d = mustOpen(t, cfg)
		if err := d.Log.StoreLog(entry(2+i, 1, nil)); err != nil {
			t.Fatal(err)
		}
		crash(t, d)
	}
}

// That the mark of a leader's snapshot cannot be stored is a warning: the log goes on behind the snapshot.
func TestLogGoesOnBehindASnapshotWithoutMark(t *testing.T) {
	d, cfg, disk := onFaulty(t)
	if err := d.Log.StoreLog(entry(1, 1, nil)); err != nil {
		t.Fatal(err)
	}
	disk.set(Write, metaName, 0, syscall.EIO)
	snapshot(t, d, 100)
	disk.heal()
	for range 2 {
		if err := d.Log.StoreLog(entry(102, 1, nil)); err == nil {
			t.Error("a gap was stored")
		}
		if err := d.Log.StoreLog(entry(101, 1, nil)); err != nil {
			t.Fatal(err)
		}
		if err := d.Log.DeleteRange(101, 101); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = mustOpen(t, cfg)
	}
	_ = d.Close()
}
