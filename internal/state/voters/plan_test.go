package voters_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/state/voters"
)

func server(id string, vote raft.ServerSuffrage) raft.Server {
	return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id + ":1"), Suffrage: vote}
}

// servers parses names; a trailing "-" means without a vote.
func servers(text string) []raft.Server {
	var out []raft.Server
	for _, f := range strings.Fields(text) {
		if name, ok := strings.CutSuffix(f, "-"); ok {
			out = append(out, server(name, raft.Nonvoter))
		} else {
			out = append(out, server(f, raft.Voter))
		}
	}
	return out
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name, config, alive string
		dead                time.Duration // how long the others are missing
		lag                 map[raft.ServerID]uint64
		want                string
		again               bool
	}{
		{name: "alone", config: "a.1", alive: "a.1"},
		{name: "newcomer", config: "a.1", alive: "a.1 b.1", want: "add b.1"},
		{name: "second gets a vote", config: "a.1 b.1-", alive: "a.1 b.1", want: "promote b.1"},
		{
			name: "not before it has caught up", config: "a.1 b.1-", alive: "a.1 b.1",
			lag: map[raft.ServerID]uint64{"b.1": 1001}, again: true,
		},
		{name: "third", config: "a.1 b.1 c.1-", alive: "a.1 b.1 c.1", want: "promote c.1"},
		{name: "a fourth alone does not", config: "a.1 b.1 c.1 d.1-", alive: "a.1 b.1 c.1 d.1"},
		{name: "a fourth and a fifth do", config: "a.1 b.1 c.1 d.1- e.1-", alive: "a.1 b.1 c.1 d.1 e.1", want: "promote d.1"},
		{name: "no sixth", config: "a.1 b.1 c.1 d.1 e.1 f.1-", alive: "a.1 b.1 c.1 d.1 e.1 f.1"},
		{name: "too many", config: "a.1 b.1 c.1 d.1 e.1 f.1", alive: "a.1 b.1 c.1 d.1 e.1 f.1", want: "demote f.1"},
		{name: "just died", config: "a.1 b.1 c.1", alive: "a.1 b.1", dead: time.Second, again: true},
		{name: "nobody is promoted meanwhile", config: "a.1 b.1 c.1 d.1- e.1-", alive: "a.1 b.1 d.1 e.1", dead: time.Second, again: true},
		{name: "dead voter", config: "a.1 b.1 c.1", alive: "a.1 b.1", dead: 3 * time.Second, want: "remove c.1"},
		{name: "two dead of four", config: "a.1 b.1 c.1 d.1", alive: "a.1 b.1", dead: time.Hour},
		{name: "one dead of two", config: "a.1 b.1", alive: "a.1", dead: time.Hour},
		{name: "a dead one without a vote is kept", config: "a.1 b.1 c.1-", alive: "a.1 b.1", dead: time.Minute, again: true},
		{name: "but not forever", config: "a.1 b.1 c.1-", alive: "a.1 b.1", dead: 10 * time.Minute, want: "remove c.1"},
		{name: "replaced incarnation", config: "a.1 b.1 c.1", alive: "a.1 b.1 c.2", want: "remove c.1"},
		{name: "replaced incarnation without a majority", config: "a.1 b.1", alive: "a.1 b.2", want: "add b.2"},
		{name: "a dead voter is replaced", config: "a.1 b.1 c.1-", alive: "a.1 b.1 c.1", dead: time.Hour, want: "promote c.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Unix(1_000_000, 0)
			v := voters.View{
				Config: raft.Configuration{Servers: servers(tt.config)}, Self: server("a.1", raft.Voter), Alive: servers(tt.alive),
				Lag: func(id raft.ServerID) (uint64, bool) { return tt.lag[id], true },
			}
			v.Missing = voters.Missing(nil, v.Config, v.Alive, now.Add(-tt.dead))
			c, again := voters.Plan(v, voters.Default(), now)
			got := ""
			if c != nil {
				got = fmt.Sprint(c.Op, " ", c.ID)
			}
			if got != tt.want || (again > 0) != tt.again {
				t.Errorf("got %q, again in %v; want %q, again %v", got, again, tt.want, tt.again)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	v := voters.View{
		Config: raft.Configuration{Servers: servers("a.1 b.1 c.1-")}, Self: server("a.1", raft.Voter), Alive: servers("a.1 b.1 c.1"),
		Lag: func(raft.ServerID) (uint64, bool) { return 0, false },
	}
	v.Config.Servers[0].Address = "local"
	for i := range v.Alive {
		v.Alive[i].Address += "2"
	}
	v.Self.Address += "2"
	for _, want := range []voters.Change{{voters.Promote, "a.1", "a.1:12"}, {voters.Promote, "b.1", "b.1:12"}, {voters.Add, "c.1", "c.1:12"}} {
		c, _ := voters.Plan(v, voters.Default(), time.Unix(0, 0))
		if c == nil || *c != want {
			t.Fatalf("got %v, want %v", c, want)
		}
		apply(&v.Config, c)
	}
}

func apply(conf *raft.Configuration, c *voters.Change) {
	i := slices.IndexFunc(conf.Servers, func(s raft.Server) bool { return s.ID == c.ID })
	switch c.Op {
	case voters.Remove:
		conf.Servers = slices.Delete(conf.Servers, i, i+1)
	case voters.Demote:
		conf.Servers[i].Suffrage = raft.Nonvoter
	case voters.Promote:
		conf.Servers[i] = raft.Server{ID: c.ID, Address: c.Address, Suffrage: raft.Voter}
	case voters.Add:
		if i < 0 {
			conf.Servers = append(conf.Servers, raft.Server{ID: c.ID, Address: c.Address, Suffrage: raft.Nonvoter})
		} else {
			conf.Servers[i].Address = c.Address
		}
	}
}

// Nodes come, die one at a time and return as others: no step ever takes the majority away, and
// when all is quiet there are as many voters as there should be, all of them alive.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := voters.View{
			Config: raft.Configuration{Servers: servers("n0.1")}, Self: server("n0.1", raft.Voter),
			Lag: func(raft.ServerID) (uint64, bool) { return 0, true },
		}
		alive := map[int]int{0: 1} // node to incarnation
		now := time.Unix(1_000_000, 0)
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			if n := rapid.IntRange(1, 8).Draw(t, "node"); rapid.Bool().Draw(t, "up") {
				alive[n] += rapid.IntRange(0, 1).Draw(t, "wiped")
				alive[n] = max(alive[n], 1)
			} else {
				delete(alive, n)
			}
			v.Alive = nil
			for n, i := range alive {
				v.Alive = append(v.Alive, server(fmt.Sprintf("n%d.%d", n, i), raft.Voter))
			}
			if lost := settle(t, &v, &now); lost {
				return // a takeover's case: more than half died at once, as one of two does
			}
			check(t, &v)
		}
	})
}

func settle(t *rapid.T, v *voters.View, now *time.Time) (lost bool) {
	for range 100 {
		v.Missing = voters.Missing(v.Missing, v.Config, v.Alive, *now)
		n, up := 0, 0
		for _, s := range v.Config.Servers {
			if s.Suffrage == raft.Voter {
				n++
				if _, missing := v.Missing[s.ID]; !missing {
					up++
				}
			}
		}
		if up <= n/2 {
			return true
		}
		c, again := voters.Plan(*v, voters.Default(), *now)
		switch {
		case c != nil:
			apply(&v.Config, c)
		case again > 0:
			*now = now.Add(again)
		default:
			return false
		}
	}
	t.Fatalf("no end: %+v", v)
	return false
}

func check(t *rapid.T, v *voters.View) {
	n := 0
	for _, s := range v.Config.Servers {
		if _, missing := v.Missing[s.ID]; missing {
			t.Fatalf("%s is missing but stays", s.ID)
		}
		if s.Suffrage == raft.Voter {
			n++
		}
	}
	if want := min(len(v.Alive), 5); n != want && (want != 4 || n != 3) || len(v.Config.Servers) != len(v.Alive) {
		t.Fatalf("%d voters, %d servers; %d alive", n, len(v.Config.Servers), len(v.Alive))
	}
}
