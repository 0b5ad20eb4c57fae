package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// Figure is one line of the table.
type Figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Budget string  `json:"budget,omitempty"` // what the design or this release promises
	Note   string  `json:"note,omitempty"`
}

// Report is all figures of a run.
type Report struct {
	At      time.Time `json:"at"`
	Figures []Figure  `json:"figures"`
}

// Add appends a figure.
func (r *Report) Add(name string, value float64, unit, budget, note string) {
	r.At = time.Now().UTC()
	r.Figures = append(r.Figures, Figure{name, value, unit, budget, note})
}

// Print writes the table.
func (r *Report) Print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tVALUE\tBUDGET\tNOTE")
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%.4g %s\t%s\t%s\n", f.Name, f.Value, f.Unit, f.Budget, f.Note)
	}
	_ = t.Flush()
}

// Save writes the figures as JSON.
func (r *Report) Save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Median of values.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Quantile of values, q from 0 to 1.
func Quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// MS is a duration in milliseconds.
func MS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Sleep waits, unless ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
