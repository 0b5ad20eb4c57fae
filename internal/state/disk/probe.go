package disk

import "os"

// Op is something done to a file or a directory.
type Op int

// Write, Sync and SyncDir are about to happen, and do not when the probe returns an error. Synced and
// SyncedDir have happened: what the file holds, or which names the directory has, survives from now on.
const (
	Write Op = iota
	Sync
	SyncDir
	Synced
	SyncedDir
)

// Probe is told of all that is done to files, and may spoil it: simulations of disks that fail, and of
// what a power failure leaves. It is called by several goroutines at once. nil stands for nobody.
type Probe func(op Op, name string) error

func (p Probe) ask(op Op, name string) error {
	if p == nil {
		return nil
	}
	return p(op, name)
}

// synced tells of a success.
func (p Probe) synced(op Op, name string, err error) error {
	if err != nil {
		return err
	}
	return p.ask(op, name)
}

// sync makes a file durable, its size included.
func (p Probe) sync(f *os.File) error {
	if err := p.ask(Sync, f.Name()); err != nil {
		return err
	}
	return p.synced(Synced, f.Name(), f.Sync())
}
