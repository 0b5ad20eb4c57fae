package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Source is what a backup is made of.
type Source struct {
	// Info names the swarm; Created, Objects and Sums are filled in.
	Info Info
	// Snapshot writes the state and returns its revision.
	Snapshot func(w io.Writer) (revision uint64, err error)
	// Keys returns the swarm's keys.
	Keys func() ([]byte, error)
	// Objects calls add for every object, as YAML; nil: none.
	Objects func(ctx context.Context, add func(path string, yaml []byte) error) error
}

// unfinished begins the names of backups that are being written.
const unfinished = ".new-"

// Create writes a backup into dir (made if missing) and returns its path. It is durable and has
// been verified when Create returns.
func Create(ctx context.Context, dir string, s Source) (path string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	s.Info.Format, s.Info.Created = Format, s.Info.Created.UTC()
	if s.Info.Created.IsZero() {
		s.Info.Created = time.Now().UTC()
	}
	f, err := os.CreateTemp(dir, unfinished+"*")
	if err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("backup: %w", err), f.Close(), os.Remove(f.Name()))
		}
	}()
	if err = write(ctx, f, s); err != nil {
		return "", err
	}
	if err = f.Sync(); err != nil {
		return "", err
	}
	if _, err = Verify(f.Name()); err != nil {
		return "", fmt.Errorf("read back: %w", err)
	}
	path = filepath.Join(dir, fileName(s.Info.Created))
	if err = os.Rename(f.Name(), path); err != nil {
		return "", err
	}
	return path, errors.Join(f.Close(), syncDir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the caller's directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write fills the archive. What the parts are is known only at the end, so backup.json comes last.
func write(ctx context.Context, to io.Writer, s Source) error {
	z := gzip.NewWriter(to)
	a := &archive{tar: tar.NewWriter(z), at: s.Info.Created, sums: map[string]string{}}
	var state bytes.Buffer
	revision, err := s.Snapshot(&state)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	s.Info.Revision = revision
	if err := a.add(stateName, state.Bytes()); err != nil {
		return err
	}
	keys, err := s.Keys()
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	if err := a.add(keysName, keys); err != nil {
		return err
	}
	if s.Objects != nil {
		err := s.Objects(ctx, func(path string, yaml []byte) error {
			s.Info.Objects++
			return a.add(objectsName+path, yaml)
		})
		if err != nil {
			return fmt.Errorf("objects: %w", err)
		}
	}
	s.Info.Sums = a.sums
	info, err := json.MarshalIndent(s.Info, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(a.add(infoName, info), a.tar.Close(), z.Close())
}

type archive struct {
	tar  *tar.Writer
	at   time.Time
	sums map[string]string
}

func (a *archive) add(name string, data []byte) error {
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: a.at}); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	a.sums[name] = hex.EncodeToString(sum[:])
	_, err := a.tar.Write(data)
	return err
}
