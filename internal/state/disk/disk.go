package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Current says which lineage a replica follows.
type Current struct {
	Lineage string `json:"lineage"`
	// Server is the replica's name in it. A replica that lost its data gets a new one, so that
	// nobody takes it for the one that voted.
	Server string `json:"server"`
	// Former is where a replica came from that has not caught up with this lineage yet.
	Former *Former `json:"former,omitempty"`
}

// Former is a lineage that was handed over to another, and is kept until the replica has all of that.
type Former struct {
	Lineage string `json:"lineage"`
	Server  string `json:"server"`
	// Reach is the revision of the new lineage at which the former one is no longer needed.
	Reach uint64 `json:"reach"`
}

// Disk is the open files of a replica in one lineage.
type Disk struct {
	Current   Current
	Log       *Log
	Meta      *Meta
	Snapshots *Snapshots
}

// Config says which directory to open.
type Config struct {
	Dir string
	Log *slog.Logger
	// Segment is the size of log files in bytes; 0: 8 MB.
	Segment int64
	// Probe is told of what happens to files; nil: nobody is.
	Probe Probe
}

const (
	lockName     = "lock"
	currentName  = "current"
	raftName     = "raft"
	metaName     = "meta"
	logName      = "log"
	snapName     = "snapshots"
	unfinished   = ".new-"
	currentMagic = "podman-swarm state"
	// currentVersion stands for the layout of the directory too.
	currentVersion = 1
)

// Release ends the wait of a vote for a disk that fails, so that Raft can be stopped.
func (d *Disk) Release() { d.Meta.impatient() }

// Close closes all files.
func (d *Disk) Close() error {
	return errors.Join(d.Log.close(), d.Meta.close())
}

// readCurrent reads the file that says which lineage counts.
func readCurrent(dir string) (Current, error) {
	name := filepath.Join(dir, currentName)
	b, err := os.ReadFile(name)
	if err != nil {
		return Current{}, err
	}
	var version, sum uint32
	var cur Current
	lines := bytes.SplitN(b, []byte("\n"), 4)
	if len(lines) != 4 || len(lines[3]) != 0 {
		return cur, damage(dir, name, "it is cut short")
	}
	if _, err := fmt.Sscanf(string(lines[2]), "crc32c %08x", &sum); err != nil ||
		sum != crc(b[:len(lines[0])+len(lines[1])+2]) || fmt.Sprintf("crc32c %08x", sum) != string(lines[2]) {
		return cur, damage(dir, name, "its checksum does not match")
	}
	if _, err := fmt.Sscanf(string(lines[0]), currentMagic+" %d", &version); err != nil {
		return cur, damage(dir, name, "its header is unreadable")
	}
	if err := codec.CheckVersion(name, version, currentVersion); err != nil {
		return cur, err
	}
	if err := json.Unmarshal(lines[1], &cur); err != nil || cur.Lineage == "" || cur.Server == "" {
		return cur, damage(dir, name, "it names no lineage")
	}
	return cur, nil
}

func writeCurrent(p Probe, dir string, cur Current) error {
	body, err := json.Marshal(cur)
	if err != nil {
		return err
	}
	b := fmt.Appendf(nil, "%s %d\n%s\n", currentMagic, currentVersion, body)
	b = fmt.Appendf(b, "crc32c %08x\n", crc(b))
	return p.replaceFile(filepath.Join(dir, currentName), b)
}
