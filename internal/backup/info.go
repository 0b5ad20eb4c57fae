package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Format is the version of the archive this release writes. It reads Format-1 too.
const Format = 1

// Parts of the archive.
const (
	infoName    = "backup.json"
	stateName   = "state.snapshot"
	keysName    = "keys.json"
	objectsName = "objects/"
)

// Info says what a backup holds.
type Info struct {
	Format   int       `json:"format"`
	Created  time.Time `json:"created"`
	Cluster  string    `json:"cluster"`
	Lineage  string    `json:"lineage"`
	Node     string    `json:"node"`
	Release  string    `json:"release"`
	Revision uint64    `json:"revision"`
	Objects  int       `json:"objects"`
	Reason   string    `json:"reason,omitempty"` // why it was made
	// Sums are the SHA-256 of the parts, in hexadecimal, by name.
	Sums map[string]string `json:"sums"`
}

// ErrDamaged says that a file is no whole backup.
var ErrDamaged = errors.New("damaged backup")

func decodeInfo(data []byte) (Info, error) {
	var i Info
	if err := json.Unmarshal(data, &i); err != nil {
		return i, fmt.Errorf("%w: %s: %w", ErrDamaged, infoName, err)
	}
	if i.Format > Format {
		return i, fmt.Errorf("backup was written by a newer release (format %d, this one reads up to %d): use that release or a newer one", i.Format, Format)
	}
	if i.Format < 1 || i.Sums == nil {
		return i, fmt.Errorf("%w: %s says nothing", ErrDamaged, infoName)
	}
	return i, nil
}
