package gossip

import (
	"testing"
	"time"
)

// TestMissedRumour cuts one member off while a rumour goes round, too shortly to be given up: it
// learns what it missed by comparing views.
func TestMissedRumour(t *testing.T) {
	var sum time.Duration
	const rounds = 10
	inCluster(t, 10, 0, func(c *cluster) {
		for i := range rounds {
			c.split(1)
			want := string(rune('a' + i))
			if err := c.all[1].SetMeta([]byte(want)); err != nil {
				c.t.Fatal(err)
			}
			pause(1300 * time.Millisecond) // the rumour and its echo are over
			c.split(0)
			sum += c.within(5*time.Second, "it knows what it missed", func() bool {
				return string(c.all[0].member(nodeName(1)).Meta) == want
			})
			c.within(5*time.Second, "all see all", func() bool { return c.agree(10) })
			pause(10 * time.Second)
		}
	})
	t.Logf("known after %v on average", sum/rounds)
	if sum/rounds > 2500*time.Millisecond {
		t.Errorf("known after %v on average", sum/rounds)
	}
}

func TestDigest(t *testing.T) {
	inCluster(t, 3, 0, func(c *cluster) {
		same := func() bool {
			return c.each(func(x *node) bool { return x.book.digest() == c.all[0].book.digest() })
		}
		if !same() {
			c.t.Error("equal views have different digests")
		}
		before := c.all[0].book.digest()
		if err := c.all[1].SetMeta([]byte("other")); err != nil {
			c.t.Fatal(err)
		}
		pause(time.Second)
		if c.all[0].book.digest() == before || !same() {
			c.t.Error("the digest says nothing of metadata")
		}
		// What is remembered of the dead is each member's own business.
		before = c.all[0].book.digest()
		c.start(3, address(3))
		c.join(3, 0)
		pause(time.Second)
		c.kill(3)
		pause(10 * time.Second)
		c.all[0].Forget(nodeName(3))
		if c.all[0].book.digest() != before || !same() {
			c.t.Error("the digest depends on the dead")
		}
	})
}
