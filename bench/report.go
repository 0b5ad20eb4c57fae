package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func fields(s string) []string { return strings.Fields(s) }

// figure is one line of the table.
type figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Budget string  `json:"budget,omitempty"` // DESIGN section 9, or what this release promises
	Note   string  `json:"note,omitempty"`
}

type report struct {
	At      time.Time `json:"at"`
	Figures []figure  `json:"figures"`
}

func (r *report) add(name string, value float64, unit, budget, note string) {
	r.At = time.Now().UTC()
	r.Figures = append(r.Figures, figure{name, value, unit, budget, note})
}

func (r *report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tVALUE\tBUDGET\tNOTE")
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%.4g %s\t%s\t%s\n", f.Name, f.Value, f.Unit, f.Budget, f.Note)
	}
	_ = t.Flush()
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
