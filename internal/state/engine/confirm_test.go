package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// answers enters confirmations, given as server: term and seconds after the start.
func answers(all map[raft.ServerID][2]int) (c *confirmations, second func(n int) time.Time) {
	c = newConfirmations()
	zero := time.Unix(1000, 0)
	second = func(n int) time.Time { return zero.Add(time.Duration(n) * time.Second) }
	for id, a := range all {
		c.add(id, uint64(a[0]), second(a[1]))
	}
	return c, second
}

func TestMajority(t *testing.T) {
	for name, tc := range map[string]struct {
		answers map[raft.ServerID][2]int
		self    raft.ServerID
		want    bool
	}{
		"nobody":                       {nil, "v0", false},
		"two of five and self":         {map[raft.ServerID][2]int{"v1": {2, 5}, "v2": {2, 6}}, "v0", true},
		"one of five and self":         {map[raft.ServerID][2]int{"v1": {2, 5}}, "v0", false},
		"those without a vote":         {map[raft.ServerID][2]int{"n0": {2, 5}, "n1": {2, 5}, "v1": {2, 5}}, "v0", false},
		"to what was sent before":      {map[raft.ServerID][2]int{"v1": {2, 5}, "v2": {2, 4}}, "v0", false},
		"in another term":              {map[raft.ServerID][2]int{"v1": {2, 5}, "v2": {1, 5}, "v3": {3, 5}}, "v0", false},
		"self without a vote":          {map[raft.ServerID][2]int{"v1": {2, 5}, "v2": {2, 5}}, "n0", false},
		"three when self has no vote":  {map[raft.ServerID][2]int{"v1": {2, 5}, "v2": {2, 5}, "v3": {2, 5}}, "n0", true},
		"one that is no member (left)": {map[raft.ServerID][2]int{"v1": {2, 5}, "v9": {2, 5}}, "v0", false},
	} {
		c, second := answers(tc.answers)
		if got := c.majority(servers(5, 2), tc.self, 2, second(5)); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Answers to one replica may overtake each other: the newest question counts.
func TestLateAnswer(t *testing.T) {
	c, second := answers(nil)
	c.add("v1", 2, second(7))
	news := c.next()
	c.add("v1", 2, second(6))
	c.add("v1", 1, second(8))
	select {
	case <-news:
		t.Error("an older answer is news")
	default:
	}
	if !c.majority(servers(3, 0), "v0", 2, second(7)) {
		t.Error("an older answer has replaced a newer one")
	}
}

func TestHeir(t *testing.T) {
	for name, tc := range map[string]struct {
		answers map[raft.ServerID][2]int
		want    raft.ServerID
	}{
		"nobody":                 {nil, ""},
		"the last one":           {map[raft.ServerID][2]int{"v1": {2, 5}, "v2": {2, 7}, "v3": {2, 6}}, "v2"},
		"not self":               {map[raft.ServerID][2]int{"v0": {2, 9}, "v1": {2, 5}}, "v1"},
		"not without a vote":     {map[raft.ServerID][2]int{"n0": {2, 9}}, ""},
		"not in another term":    {map[raft.ServerID][2]int{"v1": {1, 9}}, ""},
		"not silent for so long": {map[raft.ServerID][2]int{"v1": {2, 4}}, ""},
	} {
		c, second := answers(tc.answers)
		var got raft.Server
		if heirs := c.heirs(servers(5, 2), "v0", 2, second(5)); len(heirs) > 0 {
			got = heirs[0]
		}
		if got.ID != tc.want {
			t.Errorf("%s: %s", name, fmt.Sprint(got.ID))
		}
	}
}
