package lineage_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
)

func TestStandingCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := lineage.Standing{
			Server:  lineage.ServerName(rapid.StringN(1, 300, 300).Draw(t, "node"), "0123456789abcdef"),
			Lineage: rapid.StringN(0, 64, 64).Draw(t, "lineage"),
			Born:    hlc.Stamp(rapid.Uint64().Draw(t, "born")), Leader: rapid.Bool().Draw(t, "leader"),
			Term: rapid.Uint64().Draw(t, "term"), Index: rapid.Uint64().Draw(t, "index"),
		}
		b := s.Encode()
		if len(b) > lineage.MaxStanding {
			t.Fatalf("%d bytes", len(b))
		}
		if got, err := lineage.DecodeStanding(b); err != nil || got != s {
			t.Fatalf("got %+v, %v; want %+v", got, err, s)
		}
	})
	if s, err := lineage.DecodeStanding(nil); err != nil || s != (lineage.Standing{}) {
		t.Errorf("nothing is %+v, %v", s, err)
	}
	if _, err := lineage.DecodeStanding([]byte{9, 0}); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("a newer version: %v", err)
	}
}

func FuzzStanding(f *testing.F) {
	f.Add(lineage.Standing{Server: "n1.ab", Lineage: "l1", Born: 7, Leader: true, Term: 3, Index: 300}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := lineage.DecodeStanding(b)
		if err != nil {
			return
		}
		if again, err := lineage.DecodeStanding(s.Encode()); err != nil || again != s {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

// peer parses "NAME LINEAGE [leader]"; a lineage's number is when it was born.
func peer(text string) lineage.Peer {
	f := strings.Fields(text)
	var born hlc.Stamp
	_, _ = fmt.Sscanf(f[1], "l%d", &born)
	return lineage.Peer{Name: f[0], Addr: f[0] + ":1", Standing: lineage.Standing{
		Server: f[0] + ".x", Lineage: f[1], Born: born, Leader: len(f) > 2,
	}}
}

func view(self string, voters string, peers ...string) lineage.View {
	v := lineage.View{Self: peer(self), Member: true, Led: len(strings.Fields(self)) > 2}
	for _, name := range strings.Fields(voters) {
		v.Voters = append(v.Voters, name+".x")
	}
	for _, p := range peers {
		v.Peers = append(v.Peers, peer(p))
		v.Led = v.Led || v.Peers[len(v.Peers)-1].Standing.Lineage == v.Self.Standing.Lineage && strings.HasSuffix(p, "leader")
	}
	return v
}

func TestDecide(t *testing.T) {
	with := func(v lineage.View, change func(*lineage.View)) lineage.View { change(&v); return v }
	tests := []struct {
		name  string
		view  lineage.View
		after time.Duration // since the same view was seen first
		want  lineage.Action
		whom  string
	}{
		{"led", view("a l1", "a b", "b l1 leader"), time.Hour, lineage.Stay, ""},
		{"alone, leading", view("a l1 leader", "a"), time.Hour, lineage.Stay, ""},
		{"an election is on", view("a l1", "a b c", "b l1"), time.Hour, lineage.Stay, ""},
		{"majority lost, a moment ago", view("a l1", "a b c"), 4900 * time.Millisecond, lineage.Stay, ""},
		{"majority lost", view("a l1", "a b c"), 5 * time.Second, lineage.TakeOver, ""},
		{"half lost", view("a l1", "a b c d", "b l1"), 5 * time.Second, lineage.TakeOver, ""},
		{"frozen", with(view("a l1", "a b c"), func(v *lineage.View) { v.Freeze = true }), time.Hour, lineage.Stay, ""},
		{"a newcomer waits", with(view("a l1", ""), func(v *lineage.View) { v.Member = false }), time.Hour, lineage.Stay, ""},
		{
			"voters were replaced while this one was away",
			with(view("a l1", "a b c", "d l1 leader"), func(v *lineage.View) { v.Led = false }), time.Hour, lineage.Stay, "",
		},
		{"smaller, but for a moment only", view("a l2 leader", "a", "b l1 leader", "c l1"), 900 * time.Millisecond, lineage.Stay, ""},
		{"smaller", view("a l2 leader", "a", "b l1 leader", "c l1"), time.Second, lineage.Rejoin, "b"},
		{"smaller, though older", view("a l1 leader", "a", "b l2", "c l2 leader"), time.Second, lineage.Rejoin, "c"},
		{"larger", view("b l1 leader", "b c", "a l2 leader", "c l1"), time.Hour, lineage.Stay, ""},
		{"equal, younger", view("a l2 leader", "a", "b l1 leader"), time.Second, lineage.Rejoin, "b"},
		{"equal, older", view("a l1 leader", "a", "b l2 leader"), time.Hour, lineage.Stay, ""},
		{"three lineages", view("a l3 leader", "a", "b l2 leader", "c l1 leader"), time.Second, lineage.Rejoin, "c"},
		{"the winner elects", view("a l2 leader", "a", "b l1", "c l1"), 3 * time.Second, lineage.Stay, ""},
		{"the larger one has lost its leader for good", view("a l2 leader", "a", "b l1", "c l1"), 6 * time.Second, lineage.Stay, ""},
		{"left behind by a takeover", view("b l1", "b x y z", "c l1", "a l2 leader"), time.Second, lineage.Rejoin, "a"},
		{"electing beside a smaller one", view("b l1", "b c", "c l1", "a l2 leader"), 10 * time.Second, lineage.Stay, ""},
		{"cannot elect though most are alive", view("b l1", "b c", "c l1", "a l2 leader"), 17 * time.Second, lineage.Rejoin, "a"},
		{
			"moving, and the new lineage is lost",
			with(view("a l1", ""), func(v *lineage.View) { v.Moving, v.Member = true, false }), 5 * time.Second, lineage.Retreat, "",
		},
		{
			"moving, and it lost to a third",
			with(view("a l2", "", "b l2 leader", "c l1 leader", "d l1"), func(v *lineage.View) { v.Moving, v.Member = true, false }),
			time.Second, lineage.Retreat, "",
		},
		{"one that left does not count", view("a l1 leader", "a", "b l2 leader", "c l2"), time.Second, lineage.Rejoin, "b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var j lineage.Judge
			now := time.Unix(1000, 0)
			var got lineage.Verdict
			for step := time.Duration(0); ; step += 100 * time.Millisecond {
				if got = j.Decide(tt.view, now.Add(min(step, tt.after))); step >= tt.after || step > time.Minute {
					break
				}
				if got.Do != lineage.Stay && got.Do != tt.want {
					t.Fatalf("after %v: %+v", step, got)
				}
			}
			if got.Do != tt.want || got.Leader.Name != tt.whom {
				t.Errorf("got %v with %q, want %v with %q", got.Do, got.Leader.Name, tt.want, tt.whom)
			}
			if leads := tt.view.Self.Standing.Leader; got.Again == 0 && got.Do == lineage.Stay && !leads && !tt.view.Led {
				t.Error("never asks again though nobody leads")
			}
		})
	}
}

// Whatever is alive, when all see the same and every lineage has a leader, all but one lineage move,
// all to the same one.
func TestAllAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 9).Draw(t, "nodes")
		var peers []string
		led := map[int]bool{}
		for i := range n {
			l := rapid.IntRange(1, 4).Draw(t, "lineage")
			text := fmt.Sprintf("n%d l%d", i, l)
			if !led[l] {
				led[l], text = true, text+" leader"
			}
			peers = append(peers, text)
		}
		to := map[string]bool{}
		stay := map[string]bool{}
		for _, self := range peers {
			v := view(self, "", peers...)
			var j lineage.Judge
			j.Decide(v, time.Unix(1000, 0))
			switch got := j.Decide(v, time.Unix(1002, 0)); got.Do {
			case lineage.Stay:
				stay[v.Self.Standing.Lineage] = true
			case lineage.Rejoin:
				to[got.Winner] = true
			default:
				t.Fatalf("%+v", got)
			}
		}
		if len(stay) != 1 || len(to) > 1 || len(led) > 1 && len(to) != 1 {
			t.Fatalf("%v stay, the others go to %v", stay, to)
		}
		for id := range to {
			if !stay[id] {
				t.Fatalf("they go to %s, which leaves itself", id)
			}
		}
	})
}

// However long all was well and nobody asked, patience begins when the leader is lost.
func TestPatienceBeginsWithTheLoss(t *testing.T) {
	var j lineage.Judge
	now := time.Unix(1000, 0)
	j.Decide(view("a l1", "a b", "b l1 leader"), now)
	now = now.Add(time.Hour)
	lost := view("a l1", "a b")
	if got := j.Decide(lost, now); got.Do != lineage.Stay || got.Again == 0 {
		t.Errorf("at the loss: %+v", got)
	}
	if got := j.Decide(lost, now.Add(lineage.Patience)); got.Do != lineage.TakeOver {
		t.Errorf("after patience: %+v", got)
	}
}

func TestAhead(t *testing.T) {
	at := func(name string, term, index uint64) lineage.Position {
		return lineage.Position{Name: name, Term: term, Index: index}
	}
	for _, tt := range []struct {
		self   lineage.Position
		others []lineage.Position
		want   bool
	}{
		{at("a", 1, 1), nil, true},
		{at("a", 2, 5), []lineage.Position{at("b", 1, 9)}, true},
		{at("a", 1, 9), []lineage.Position{at("b", 2, 5)}, false},
		{at("a", 2, 5), []lineage.Position{at("b", 2, 6)}, false},
		{at("a", 2, 5), []lineage.Position{at("b", 2, 5), at("c", 2, 5)}, true},
		{at("b", 2, 5), []lineage.Position{at("a", 2, 5)}, false},
	} {
		if got := lineage.Ahead(tt.self, tt.others); got != tt.want {
			t.Errorf("%+v ahead of %+v: %v", tt.self, tt.others, got)
		}
	}
}
