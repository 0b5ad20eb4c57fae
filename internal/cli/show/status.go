package show

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Status prints the swarm at a glance.
func (p *Printer) Status(s swarm.Status) error {
	return p.print(s, func(w io.Writer) error {
		facts := [][2]string{
			{"Health", s.Health},
			{"Leader", orNone(s.Leader)},
			{"Answered by", s.Node},
			{"Revision", strconv.FormatUint(s.Revision, 10)},
			{"Swarm", s.ClusterID},
			{"Lineage", fmt.Sprintf("%s, begun %s", s.Lineage.ID, p.ago(s.Lineage.Born))},
		}
		for i, a := range s.Lineage.Parents {
			if i > 0 && p.Format != "wide" {
				facts = append(facts, [2]string{"", fmt.Sprintf("and %d before that (-o wide)", len(s.Lineage.Parents)-i)})
				break
			}
			facts = append(facts, [2]string{"", fmt.Sprintf("from %s at revision %d, %s", a.ID, a.Revision, p.ago(a.Time))})
		}
		if s.Conflicts > 0 {
			facts = append(facts, [2]string{"Conflicts", fmt.Sprintf("%d: a merge overwrote changes, see psctl swarm conflicts", s.Conflicts)})
		}
		if err := describe(w, facts); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return table(p, w, s.Members, p.memberColumns())
	})
}

// describe prints facts as kubectl describe does.
func describe(w io.Writer, facts [][2]string) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range facts {
		name := f[0]
		if name != "" {
			name += ":"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", name, f[1]) // Flush reports what went wrong
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// Members prints a table of members.
func (p *Printer) Members(members []swarm.Member) error {
	return list(p, members, "No members found.", p.memberColumns())
}

func (p *Printer) memberColumns() []column[swarm.Member] {
	type m = swarm.Member
	return []column[m]{
		{"NAME", false, func(m m) string { return m.Name }},
		{"STATE", false, state},
		{"ROLE", false, func(m m) string { return m.Role }},
		{"LAG", false, func(m m) string { return strconv.FormatUint(m.Lag, 10) }},
		{"RELEASE", false, func(m m) string { return m.Release }},
		{"ADDRESS", false, func(m m) string { return m.Address }},
		{"SINCE", false, func(m m) string { return p.age(m.Since) }},
		{"API", true, func(m m) string { return m.APIAddress }},
		{"LINEAGE", true, func(m m) string { return m.Lineage }},
	}
}

func state(m swarm.Member) string {
	if m.Fenced {
		return m.State + ",fenced"
	}
	return m.State
}
