package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kept is one backup of a directory.
type Kept struct {
	Name    string
	Path    string
	Created time.Time
	Size    int64
}

const (
	nameStart = "swarm-"
	nameEnd   = ".tar.gz"
	nameTime  = "20060102T150405.000Z"
)

func fileName(at time.Time) string { return nameStart + at.UTC().Format(nameTime) + nameEnd }

// List returns the backups of a directory, the newest first. Other files are not looked at.
func List(dir string) ([]Kept, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	var out []Kept
	for _, e := range entries {
		stamp, ok := strings.CutPrefix(e.Name(), nameStart)
		stamp, ok2 := strings.CutSuffix(stamp, nameEnd)
		at, err := time.Parse(nameTime, stamp)
		if !ok || !ok2 || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		out = append(out, Kept{Name: e.Name(), Path: filepath.Join(dir, e.Name()), Created: at, Size: info.Size()})
	}
	slices.SortFunc(out, func(a, b Kept) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// Retention says how many backups stay: the newest of each of the last Hours hours that have one,
// and of each of the last Days days.
type Retention struct{ Hours, Days int }

// DefaultRetention keeps a day of hours and a week of days.
func DefaultRetention() Retention { return Retention{Hours: 24, Days: 7} }

// Surplus are the backups that the retention lets go, oldest first. The newest always stays.
//
// Backups dated after now are of a time when the clock was ahead, or it is behind now. Nobody knows
// which, so they and the others are each kept as if there were only them.
func (r Retention) Surplus(kept []Kept, now time.Time) []Kept {
	newest := slices.SortedFunc(slices.Values(kept), func(a, b Kept) int { return b.Created.Compare(a.Created) })
	stays := map[string]bool{}
	past := len(Ahead(newest, now))
	for _, some := range [][]Kept{newest[:past], newest[past:]} {
		mark(stays, some, time.Hour, r.Hours)
		mark(stays, some, 24*time.Hour, r.Days)
	}
	var out []Kept
	for _, k := range slices.Backward(newest) {
		if !stays[k.Name] {
			out = append(out, k)
		}
	}
	return out
}

// mark has the newest of each of the last spans stay, and the newest of all.
func mark(stays map[string]bool, newest []Kept, span time.Duration, most int) {
	seen := map[time.Time]bool{}
	for i, k := range newest {
		slot := k.Created.Truncate(span)
		if i == 0 || !seen[slot] && len(seen) < most {
			stays[k.Name] = true
			seen[slot] = true
		}
	}
}

// Ahead are those of a list, the newest first, that are dated after now.
func Ahead(newest []Kept, now time.Time) []Kept {
	i := slices.IndexFunc(newest, func(k Kept) bool { return !k.Created.After(now) })
	if i < 0 {
		return newest
	}
	return newest[:i]
}

// Prune removes what the retention lets go and returns how many those were.
func Prune(dir string, r Retention, now time.Time) (int, error) {
	kept, err := List(dir)
	if err != nil {
		return 0, err
	}
	surplus := r.Surplus(kept, now)
	for i, k := range surplus {
		if err := os.Remove(k.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return i, fmt.Errorf("remove old backup: %w", err)
		}
	}
	return len(surplus), nil
}

// Clean removes what was being written when this machine or its agent ended. Nothing may be being
// written into dir now.
func Clean(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list unfinished backups: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
