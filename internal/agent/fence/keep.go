package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// recall reads since when the agent before this one saw no majority; zero: it saw one, or there was none.
func recall(file string, now time.Time) (time.Time, error) {
	if file == "" {
		return time.Time{}, nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // our own file
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read since when this node is cut off: %w", err)
	}
	lost, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(text)))
	if err != nil {
		return time.Time{}, fmt.Errorf("read since when this node is cut off: %s: %w", file, err)
	}
	if lost.After(now) { // the clock was set back
		lost = now
	}
	return lost, nil
}

// keep writes it for the agent after this one.
func keep(file string, lost time.Time) error {
	if file == "" {
		return nil
	}
	var err error
	if lost.IsZero() {
		if err = os.Remove(file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		err = os.WriteFile(file, []byte(lost.UTC().Format(time.RFC3339Nano)+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep since when this node is cut off: %w", err)
	}
	return nil
}
