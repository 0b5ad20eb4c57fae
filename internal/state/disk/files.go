package disk

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
	tmp      = ".tmp"
)

// castagnoli returns the table of the polynomial that processors compute.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }

// syncDir makes created, renamed and removed names durable.
func (p Probe) syncDir(dir string) error {
	if err := p.ask(SyncDir, dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return p.synced(SyncedDir, dir, errors.Join(d.Sync(), d.Close()))
}

// replaceFile writes a whole file so that after a crash either the old or the new content is there.
func (p Probe) replaceFile(name string, content []byte) error {
	if err := p.writeSynced(name+tmp, content); err != nil {
		return errors.Join(err, os.RemoveAll(name+tmp))
	}
	if err := os.Rename(name+tmp, name); err != nil {
		return err
	}
	return p.syncDir(filepath.Dir(name))
}

func (p Probe) writeSynced(name string, content []byte) error {
	if err := p.ask(Write, name); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, p.sync(f), f.Close())
}

// list returns the names in dir that end in suffix, sorted, and removes what a crash left half made.
func list(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasSuffix(name, tmp):
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return nil, err
			}
		case strings.HasSuffix(name, suffix):
			names = append(names, name)
		default:
			return nil, fmt.Errorf("%s does not belong here: move it away", filepath.Join(dir, name))
		}
	}
	return names, nil
}
