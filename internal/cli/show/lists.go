package show

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Tokens prints a table of join tokens.
func (p *Printer) Tokens(tokens []swarm.Token) error {
	type t = swarm.Token
	return list(p, tokens, "No join tokens found.", []column[t]{
		{"ID", false, func(t t) string { return t.ID }},
		{"USED", false, func(t t) string {
			if t.Uses == 0 {
				return strconv.Itoa(t.Used)
			}
			return fmt.Sprintf("%d/%d", t.Used, t.Uses)
		}},
		{"EXPIRES", false, func(t t) string { return p.left(t.Expires) }},
		{"AGE", false, func(t t) string { return p.age(t.Created) }},
		{"DESCRIPTION", false, func(t t) string { return t.Description }},
	})
}

// NewToken prints a token with its secret, and how it is used.
func (p *Printer) NewToken(t swarm.NewToken) error {
	return p.print(t, func(w io.Writer) error {
		uses := "without limit"
		if t.Uses == 1 {
			uses = "once"
		} else if t.Uses > 1 {
			uses = fmt.Sprintf("%d times", t.Uses)
		}
		ends := "It never expires"
		if !t.Expires.IsZero() {
			ends = "It expires in " + duration.HumanDuration(t.Expires.Sub(t.Created)) // it was made this instant
		}
		_, err := fmt.Fprintf(w, "Token %s may be used %s. %s, and is shown this once. On the new node run:\n\n  %s\n\n", t.ID, uses, ends, t.JoinCommand)
		return err
	})
}

// Conflicts prints a table of what merges overwrote: of people's work, or of everything.
func (p *Printer) Conflicts(conflicts []swarm.Conflict, everything bool) error {
	type c = swarm.Conflict
	all := len(conflicts)
	if !everything {
		conflicts = slices.DeleteFunc(slices.Clone(conflicts), func(c c) bool { return c.Derived })
	}
	if hidden := all - len(conflicts); hidden > 0 {
		defer fmt.Fprintf(p.Err, "%d more: status, and what controllers made and have made again since (--all)\n", hidden)
	}
	return list(p, conflicts, "No conflicts found.", []column[c]{
		{"ID", false, func(c c) string { return c.ID }},
		{"NAMESPACE", false, func(c c) string { return c.Namespace }},
		{"OBJECT", false, object},
		{"KEPT", false, func(c c) string { return change(c.Kept) }},
		{"OVERWRITTEN", false, func(c c) string { return change(c.Overwritten) }},
		{"UNDONE", false, func(c c) string {
			if c.Undone.IsZero() {
				return "no"
			}
			return p.ago(c.Undone)
		}},
		{"AGE", false, func(c c) string { return p.age(c.Time) }},
		{"KEY", true, func(c c) string { return c.Key }},
		{"KEPT-LINEAGE", true, func(c c) string { return c.Kept.Lineage }},
		{"OVERWRITTEN-LINEAGE", true, func(c c) string { return c.Overwritten.Lineage }},
	})
}

func object(c swarm.Conflict) string {
	if c.Resource == "" {
		return c.Key
	}
	return c.Resource + "/" + c.Name
}

func version(v swarm.Version) string {
	var words []string
	if v.Deleted {
		words = append(words, "deleted")
	}
	if v.Node != "" {
		words = append(words, "by "+v.Node)
	}
	return strings.Join(words, " ")
}

// change is what a version is known by in a list: what was done, by whom, when.
func change(v swarm.Version) string {
	if who := version(v); who != "" {
		return who + " " + stamp(v.Written)
	}
	return stamp(v.Written)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Backups prints a table of backups.
func (p *Printer) Backups(backups []swarm.Backup) error {
	type b = swarm.Backup
	return list(p, backups, "No backups found.", []column[b]{
		{"ID", false, func(b b) string { return b.ID }},
		{"NODE", false, func(b b) string { return b.Node }},
		{"REVISION", false, func(b b) string { return strconv.FormatUint(b.Revision, 10) }},
		{"OBJECTS", false, func(b b) string { return strconv.Itoa(b.Objects) }},
		{"SIZE", false, func(b b) string { return size(b.Size) }},
		{"VERIFIED", false, func(b b) string { return strconv.FormatBool(!b.Verified.IsZero()) }},
		{"REASON", false, func(b b) string { return b.Reason }},
		{"AGE", false, func(b b) string { return p.age(b.Created) }},
		{"RELEASE", true, func(b b) string { return b.Release }},
		{"FILE", true, func(b b) string { return b.Path }},
	})
}

// size is a file's size in two or three digits.
func size(n int64) string {
	for _, unit := range []struct {
		bytes int64
		name  string
	}{{1 << 30, "Gi"}, {1 << 20, "Mi"}, {1 << 10, "Ki"}} {
		if n >= unit.bytes {
			v := float64(n) / float64(unit.bytes)
			if v < 10 {
				return strconv.FormatFloat(v, 'f', 1, 64) + unit.name
			}
			return strconv.FormatFloat(v, 'f', 0, 64) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// BackupPolicy prints when backups are made.
func (p *Printer) BackupPolicy(b swarm.BackupPolicy) error {
	return p.print(b, func(w io.Writer) error {
		every := "A backup is made every " + short(b.Every)
		if b.Every == 0 {
			every = "No backup is made by itself"
		}
		_, err := fmt.Fprintf(w, "%s; each node keeps the newest %d.\n", every, b.Keep)
		return err
	})
}
