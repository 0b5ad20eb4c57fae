package show

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

var update = flag.Bool("update", false, "write what is printed as what is wanted")

func now() time.Time { return time.Date(2026, 11, 8, 12, 0, 0, 0, time.UTC) }

func before(d time.Duration) time.Time { return now().Add(-d) }

func printer(format string) (*Printer, *bytes.Buffer) {
	out := &bytes.Buffer{}
	return &Printer{Out: out, Err: out, Now: now, Format: format}, out
}

func members() []swarm.Member {
	return []swarm.Member{
		{Name: "ant", Address: "10.0.0.1:7946", APIAddress: "10.0.0.1:6443", State: swarm.StateAlive, Since: before(50 * time.Hour), Role: swarm.RoleLeader, Release: "0.3.0", Lineage: "k3v9"},
		{Name: "bee", Address: "10.0.0.2:7946", APIAddress: "10.0.0.2:6443", State: swarm.StateAlive, Since: before(90 * time.Second), Role: swarm.RoleReplica, Release: "0.3.0", Lineage: "k3v9", Lag: 12},
		{Name: "cat", Address: "10.0.0.3:7946", State: swarm.StateDead, Since: before(4 * time.Second), Fenced: true},
	}
}

func status(parents ...swarm.Ancestor) swarm.Status {
	q := swarm.Quorum{Leader: true, Voters: 3, Alive: 2}
	return swarm.Status{
		ClusterID: "5f3a", Node: "bee", Leader: "ant", Revision: 1234567, Quorum: q, Health: q.Words(), Members: members(),
		Lineage: swarm.Lineage{ID: "k3v9", Born: before(49 * time.Hour), Parents: parents},
	}
}

func conflict() swarm.Conflict {
	object := func(replicas int) *swarm.Value {
		return &swarm.Value{Object: fmt.Appendf(nil, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"labels":{"a":"1","b":"2","c":"3"},"name":"web"},"spec":{"replicas":%d}}`, replicas)}
	}
	return swarm.Conflict{
		ID: "8f2c", Key: "/registry/deployments/default/web", Resource: "deployments.apps", Namespace: "default", Name: "web", Time: before(3 * time.Hour),
		Kept:        swarm.Version{Written: before(4 * time.Hour), Node: "ant", Lineage: "k3v9", Value: object(5)},
		Overwritten: swarm.Version{Written: before(5 * time.Hour), Node: "cat", Lineage: "m1q7", Value: object(3)},
	}
}

func cases() map[string]func(*Printer) error {
	ancestors := []swarm.Ancestor{{ID: "a0", Time: before(49 * time.Hour), Revision: 99}, {ID: "a1", Time: before(400 * time.Hour), Revision: 5}}
	raw := swarm.Conflict{
		ID: "91", Key: "/swarm/tokens/x", Time: before(time.Minute), Undone: before(2 * time.Second),
		Kept: swarm.Version{Written: before(time.Hour), Deleted: true}, Overwritten: swarm.Version{Written: before(2 * time.Hour), Value: &swarm.Value{Raw: bytes.Repeat([]byte{1, 2, 3}, 30)}},
	}
	listed, derived := conflict(), conflict()
	derived.ID, derived.Name, derived.Derived = "d1", "web-1", true
	listed.Kept.Value, listed.Overwritten.Value = nil, nil
	drill := swarm.DrillResult{
		Node: "bee", Pods: 4, Plan: []string{"its agent is killed", "its 6 pods are stopped"}, Finished: now(),
		Timings: []swarm.Timing{
			{Name: "detection", Took: swarm.Duration(2612 * time.Millisecond), Budget: swarm.Duration(3 * time.Second)},
			{Name: "replacement", Took: swarm.Duration(5400 * time.Millisecond), Budget: swarm.Duration(5 * time.Second)},
			{Name: "return", Took: swarm.Duration(850 * time.Millisecond), Budget: swarm.Duration(10 * time.Second)},
		},
	}
	dry := swarm.DrillResult{Node: "bee", DryRun: true, Pods: 4, Plan: []string{"its agent would be killed"}}
	return map[string]func(*Printer) error{
		"status":                  func(p *Printer) error { return p.Status(status(ancestors...)) },
		"status of one":           func(p *Printer) error { return p.Status(swarm.Status{Node: "ant", Conflicts: 2, Health: "starting"}) },
		"members":                 func(p *Printer) error { return p.Members(members()) },
		"no members":              func(p *Printer) error { return p.Members(nil) },
		"no backups":              func(p *Printer) error { return p.Backups(nil) },
		"conflicts":               func(p *Printer) error { return p.Conflicts([]swarm.Conflict{listed, raw}, false) },
		"conflicts, some derived": func(p *Printer) error { return p.Conflicts([]swarm.Conflict{listed, derived, derived}, false) },
		"conflicts, all":          func(p *Printer) error { return p.Conflicts([]swarm.Conflict{listed, derived}, true) },
		"conflict":                func(p *Printer) error { return p.Conflict(conflict()) },
		"conflict of raws":        func(p *Printer) error { return p.Conflict(raw) },
		"drill":                   func(p *Printer) error { return p.Drill(drill) },
		"drill, dry":              func(p *Printer) error { return p.Drill(dry) },
		"policy": func(p *Printer) error {
			return p.BackupPolicy(swarm.BackupPolicy{Every: swarm.Duration(time.Hour), Keep: 24})
		},
		"no policy": func(p *Printer) error { return p.BackupPolicy(swarm.BackupPolicy{Keep: 1}) },
		"tokens": func(p *Printer) error {
			return p.Tokens([]swarm.Token{
				{ID: "7k2m", Created: before(time.Hour), Expires: now().Add(23 * time.Hour), Uses: 3, Used: 1, Description: "rack 2"},
				{ID: "p0aa", Created: before(240 * time.Hour), Used: 4},
				{ID: "zz91", Created: before(48 * time.Hour), Expires: before(24 * time.Hour), Uses: 1},
			})
		},
		"new token": func(p *Printer) error {
			return p.NewToken(swarm.NewToken{
				Token:  swarm.Token{ID: "7k2m", Created: now(), Expires: now().Add(24 * time.Hour), Uses: 1},
				Secret: "pswt1.x", JoinCommand: "podman-swarm join 10.0.0.1:7946 --token pswt1.x",
			})
		},
		"backups": func(p *Printer) error {
			return p.Backups([]swarm.Backup{
				{ID: "20261108-1100", Node: "ant", Path: "/var/lib/podman-swarm/backups/20261108-1100", Created: before(time.Hour), Revision: 1234500, Objects: 812, Size: 3 << 20, Release: "0.3.0", Reason: "hourly", Verified: before(time.Hour)},
				{ID: "20261101-0900", Node: "bee", Created: before(170 * time.Hour), Revision: 77, Objects: 2, Size: 999},
			})
		},
	}
}

func TestGolden(t *testing.T) {
	file := filepath.Join("testdata", "printed.txtar")
	archive, err := txtar.ParseFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	want := map[string]string{}
	if archive != nil {
		for _, f := range archive.Files {
			want[f.Name] = string(f.Data)
		}
	}
	var have txtar.Archive
	for _, format := range []string{"", "wide", "yaml", "json"} {
		for _, name := range slices.Sorted(maps.Keys(cases())) {
			if format == "json" && name != "members" && name != "no members" { // encoding/json needs no more
				continue
			}
			p, out := printer(format)
			if err := cases()[name](p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			name := strings.TrimSuffix(name+" -o "+format, " -o ")
			have.Files = append(have.Files, txtar.File{Name: name, Data: out.Bytes()})
			if !*update && out.String() != want[name] {
				t.Errorf("%s: have\n%swant\n%s", name, out, want[name])
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(&have), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if len(want) != len(have.Files) {
		t.Errorf("%d cases, %d in %s", len(have.Files), len(want), file)
	}
}

func TestFormats(t *testing.T) {
	p, _ := printer("xml")
	if err := p.Check(); err == nil || err.Error() != "-o xml: the formats are json, yaml and wide" {
		t.Errorf("have %v", err)
	}
	p, out := printer("")
	p.NoHeaders = true
	if err := p.Members(members()); err != nil || strings.Contains(out.String(), "NAME") || !strings.HasPrefix(out.String(), "ant ") {
		t.Errorf("--no-headers prints %s (%v)", out, err)
	}
}

// TestScript: what a diff is made of rebuilds both texts.
func TestScript(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]string{"a\n", "b\n", "c\n"}), 0, 12)
		x, y := text.Draw(t, "x"), text.Draw(t, "y")
		var a, b []string
		for _, l := range script(x, y) {
			if l[0] != '+' {
				a = append(a, l[1:])
			}
			if l[0] != '-' {
				b = append(b, l[1:])
			}
		}
		if strings.Join(a, "") != strings.Join(x, "") || strings.Join(b, "") != strings.Join(y, "") {
			t.Fatalf("%q, %q: %q, %q", x, y, a, b)
		}
	})
}

func TestDiffLeavesOutWhatIsFar(t *testing.T) {
	a := "1\n2\n3\n4\n5\n6\n7\n8\n9\n"
	if have, want := diff(a, strings.Replace(a, "5", "five", 1)), "...\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n...\n"; have != want {
		t.Errorf("have %s", have)
	}
	if have := diff(a, a); have != "(nothing)\n" {
		t.Errorf("have %s", have)
	}
	if have := diff(strings.Repeat("x\n", 3000), strings.Repeat("y\n", 3000)); have != "(too long to compare)\n" {
		t.Errorf("have %s", have)
	}
}
