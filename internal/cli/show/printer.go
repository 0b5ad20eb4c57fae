package show

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Printer prints answers in the chosen format.
type Printer struct {
	Out       io.Writer
	Err       io.Writer // what is said beside an answer
	Now       func() time.Time
	Format    string // "", "wide", "json" or "yaml"
	NoHeaders bool
}

// AddFlags adds -o, and --no-headers for what prints a table.
func (p *Printer) AddFlags(f *pflag.FlagSet) {
	f.StringVarP(&p.Format, "output", "o", "", "Output format: json, yaml or wide.")
	f.BoolVar(&p.NoHeaders, "no-headers", false, "Do not print the line with the names of the columns.")
}

// Check reports a format that does not exist, before anything is asked or done.
func (p *Printer) Check() error {
	switch p.Format {
	case "", "wide", "json", "yaml":
		return nil
	}
	return fmt.Errorf("-o %s: the formats are json, yaml and wide", p.Format)
}

// print prints v itself, or lets human print it.
func (p *Printer) print(v any, human func(w io.Writer) error) error {
	switch p.Format {
	case "json":
		data, err := json.MarshalIndent(v, "", "    ")
		return p.write(append(data, '\n'), err)
	case "yaml":
		data, err := yaml.Marshal(v)
		return p.write(data, err)
	}
	return human(p.Out)
}

func (p *Printer) write(data []byte, err error) error {
	if err == nil {
		_, err = p.Out.Write(data)
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// column is one column of a table of T.
type column[T any] struct {
	name string
	wide bool // only with -o wide
	cell func(T) string
}

func table[T any](p *Printer, w io.Writer, items []T, columns []column[T]) error {
	tw := printers.GetNewTabWriter(w)
	row := func(cell func(column[T]) string) {
		var cells []string
		for _, c := range columns {
			if !c.wide || p.Format == "wide" {
				cells = append(cells, cell(c))
			}
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t")) // Flush reports what went wrong
	}
	if !p.NoHeaders {
		row(func(c column[T]) string { return c.name })
	}
	for _, item := range items {
		row(func(c column[T]) string { return orNone(c.cell(item)) })
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// list prints items as a table, as {"items": [...]}, or says that there are none.
func list[T any](p *Printer, items []T, none string, columns []column[T]) error {
	if items == nil {
		items = []T{}
	}
	return p.print(swarm.List[T]{Items: items}, func(w io.Writer) error {
		if len(items) == 0 {
			_, err := fmt.Fprintln(p.Err, none) // as kubectl: a script reads no lines
			return err
		}
		return table(p, w, items, columns)
	})
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func (p *Printer) age(t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(p.Now().Sub(t))
}

// left is the time until t.
func (p *Printer) left(t time.Time) string {
	switch d := t.Sub(p.Now()); {
	case t.IsZero():
		return "<never>"
	case d <= 0:
		return "<expired>"
	default:
		return duration.HumanDuration(d)
	}
}

func (p *Printer) ago(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return p.age(t) + " ago"
}
