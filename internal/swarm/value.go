package swarm

import (
	"encoding/json"
	"fmt"
	"time"
)

// Value is one stored value: Object where it could be decoded as a Kubernetes object, otherwise the
// bytes (base64 in JSON).
type Value struct {
	Object json.RawMessage `json:"object,omitempty"`
	Raw    []byte          `json:"raw,omitempty"`
}

// Duration is a time.Duration that reads and writes "1h30m0s".
type Duration time.Duration

// MarshalText writes the duration as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration: say for example 90s, 30m or 24h", text)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }
