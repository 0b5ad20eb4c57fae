package show

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Conflict prints both versions of a conflict, and what differs.
func (p *Printer) Conflict(c swarm.Conflict) error {
	return p.print(c, func(w io.Writer) error {
		kept, err := text(c.Kept)
		if err != nil {
			return err
		}
		lost, err := text(c.Overwritten)
		if err != nil {
			return err
		}
		undone := "no; psctl swarm conflicts undo " + c.ID + " puts the overwritten version back"
		if !c.Undone.IsZero() {
			undone = p.ago(c.Undone)
		}
		facts := [][2]string{{"Object", object(c)}}
		if c.Namespace != "" {
			facts = append(facts, [2]string{"Namespace", c.Namespace})
		}
		facts = append(facts, [2]string{"Merged", p.ago(c.Time)}, [2]string{"Kept", written(c.Kept)},
			[2]string{"Overwritten", written(c.Overwritten)}, [2]string{"Undone", undone})
		if err := describe(w, facts); err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "\nKept version:\n%s\nOverwritten version:\n%s\nWhat undo would change:\n%s", indent(kept), indent(lost), indent(diff(kept, lost)))
		return err
	})
}

func written(v swarm.Version) string {
	s := "written " + stamp(v.Written)
	if who := version(v); who != "" {
		s = who + ", " + s
	}
	if v.Lineage != "" {
		s += " in lineage " + v.Lineage
	}
	return s
}

// text is a version as a person reads it.
func text(v swarm.Version) (string, error) {
	switch {
	case v.Deleted:
		return "(deleted)\n", nil
	case v.Value == nil:
		return "(no value)\n", nil
	case v.Value.Object != nil:
		data, err := yaml.JSONToYAML(v.Value.Object)
		if err != nil {
			return "", fmt.Errorf("version of %s: %w", stamp(v.Written), err)
		}
		return string(data), nil
	}
	var lines strings.Builder
	encoded := []byte(base64.StdEncoding.EncodeToString(v.Value.Raw))
	for len(encoded) > 0 {
		n := min(76, len(encoded))
		lines.Write(encoded[:n])
		lines.WriteByte('\n')
		encoded = encoded[n:]
	}
	return lines.String(), nil
}

func indent(s string) string {
	var b bytes.Buffer
	for l := range strings.Lines(s) {
		b.WriteString("  " + l)
	}
	return b.String()
}

// Drill prints what a drill measured beside its budgets, or what it would do.
func (p *Printer) Drill(d swarm.DrillResult) error {
	return p.print(d, func(w io.Writer) error {
		verb := "was"
		if d.DryRun {
			verb = "would be"
		}
		if len(d.Plan) > 0 {
			_, _ = fmt.Fprintf(w, "What %s done to %s:\n%s\n", verb, d.Node, indent(strings.Join(d.Plan, "\n")+"\n"))
		}
		if d.DryRun {
			_, err := fmt.Fprintf(w, "%d pods would be replaced. Nothing was changed.\n", d.Pods)
			return err
		}
		type t = swarm.Timing
		if err := table(p, w, d.Timings, []column[t]{
			{"STEP", false, func(t t) string { return t.Name }},
			{"TOOK", false, func(t t) string { return short(t.Took) }},
			{"BUDGET", false, func(t t) string { return short(t.Budget) }},
			{"KEPT", false, func(t t) string {
				if t.Took > t.Budget {
					return "no"
				}
				return "yes"
			}},
		}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\n%d pods of %s were replaced; everything was put back.\n", d.Pods, d.Node)
		return err
	})
}

// short is a duration as people say it: 1h, 2.6s, 850ms.
func short(d swarm.Duration) string {
	v := time.Duration(d)
	if v >= time.Second {
		v = v.Round(100 * time.Millisecond)
	} else {
		v = v.Round(time.Millisecond)
	}
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
