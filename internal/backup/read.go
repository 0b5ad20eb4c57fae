package backup

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Contents is what a restore needs.
type Contents struct {
	Info     Info
	Snapshot []byte
	Keys     []byte
}

const (
	// maxPart bounds what is read into memory of one part.
	maxPart = 4 << 30
	// maxParts bounds the number of parts.
	maxParts = 4 << 20
)

// Verify reads a whole backup and compares every checksum.
func Verify(path string) (Info, error) {
	c, err := Open(path)
	return c.Info, err
}

// Open reads a backup and compares every checksum.
func Open(path string) (Contents, error) {
	f, err := os.Open(path) //nolint:gosec // the file asked for
	if err != nil {
		return Contents{}, fmt.Errorf("open backup: %w", err)
	}
	defer f.Close()
	c, err := Read(f)
	if err != nil {
		return c, fmt.Errorf("backup %s: %w", path, err)
	}
	return c, nil
}

// Read reads a backup from anywhere. Any input is safe.
func Read(from io.Reader) (Contents, error) {
	var c Contents
	z, err := gzip.NewReader(from)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	sums, err := c.parts(tar.NewReader(z))
	if err != nil {
		return c, err
	}
	// Behind the archive nothing may follow, and the compression's own checksum must be right.
	if n, err := io.Copy(io.Discard, z); err != nil || n > 1<<20 {
		return c, fmt.Errorf("%w: %d bytes behind its end: %w", ErrDamaged, n, err)
	}
	return c, c.compare(sums)
}

// parts reads the archive, keeps what a restore needs and returns the checksums of everything.
func (c *Contents) parts(t *tar.Reader) (sums map[string]string, err error) {
	sums = map[string]string{}
	var info []byte
	for len(sums) <= maxParts {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			c.Info, err = decodeInfo(info)
			return sums, err
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if h.Size > maxPart || h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%w: part %q", ErrDamaged, h.Name)
		}
		sum := sha256.New()
		var keep *[]byte
		switch h.Name {
		case infoName:
			keep = &info
		case stateName:
			keep = &c.Snapshot
		case keysName:
			keep = &c.Keys
		}
		r := io.TeeReader(t, sum)
		if keep != nil {
			*keep, err = io.ReadAll(r)
		} else {
			_, err = io.Copy(io.Discard, r)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: part %s: %w", ErrDamaged, h.Name, err)
		}
		if h.Name != infoName {
			sums[h.Name] = hex.EncodeToString(sum.Sum(nil))
		}
	}
	return nil, fmt.Errorf("%w: too many parts", ErrDamaged)
}

// compare holds what was read against what was written.
func (c *Contents) compare(sums map[string]string) error {
	var wrong []string
	for name, want := range c.Info.Sums {
		if sums[name] != want {
			wrong = append(wrong, name)
		}
	}
	if len(wrong) > 0 || len(sums) != len(c.Info.Sums) {
		return fmt.Errorf("%w: parts that are not what was written: %s", ErrDamaged, strings.Join(wrong, " "))
	}
	if c.Info.Sums[stateName] == "" || c.Info.Sums[keysName] == "" {
		return fmt.Errorf("%w: no state or no keys in it", ErrDamaged)
	}
	return nil
}
