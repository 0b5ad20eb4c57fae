package gossip

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestKeyRotation(t *testing.T) {
	inCluster(t, 5, 0.02, func(c *cluster) {
		t := c.t
		old, next := key(1), key(2)
		for _, keys := range [][][]byte{{old, next}, {next, old}, {next}} {
			for _, x := range c.all { // one after another, as they hear of it
				if err := x.SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				pause(700 * time.Millisecond)
				if !c.agree(5) {
					t.Fatal("a member was lost")
				}
			}
			changed := c.all[0].Changed()
			select {
			case <-changed:
				t.Fatalf("something has changed: %v", c.all[0].Members())
			case <-time.After(30 * time.Second):
			}
		}
		if got := c.all[3].Keys(); len(got) != 1 || !bytes.Equal(got[0], next) {
			t.Errorf("keys are %x", got)
		}
		if err := c.all[0].SetMeta([]byte("after")); err != nil {
			t.Fatal(err)
		}
		c.within(time.Second, "they still talk", func() bool {
			return c.each(func(x *node) bool { return string(x.member(nodeName(0)).Meta) == "after" })
		})
	})
}

func TestStrangersAreNotAdmitted(t *testing.T) {
	inCluster(t, 3, 0, func(c *cluster) {
		t := c.t
		stranger, err := c.open(9, address(9), key(9))
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.end()
		stranger.peers = []string{address(0), address(1), address(2)}
		if err := stranger.Join(t.Context(), stranger.peers); err == nil {
			t.Error("joined with a wrong key")
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %q", err)
		}
		pause(time.Minute)
		if !c.agree(3) || stranger.count(Alive) != 1 {
			t.Error("a stranger was let in")
		}
	})
}

func TestKeysAreChecked(t *testing.T) {
	for name, keys := range map[string][][]byte{"none": nil, "short": {key(1)[1:]}, "one is short": {key(1), {1}}} {
		if _, err := newRing(keys); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestTurn brings rings from any keys to any others, while they are read as memberlist reads them
// (which the race detector watches).
func TestTurn(t *testing.T) {
	keysOf := rapid.Custom(func(t *rapid.T) [][]byte {
		var keys [][]byte
		for _, b := range rapid.SliceOfN(rapid.ByteRange(1, 6), 1, 6).Draw(t, "keys") {
			keys = append(keys, key(b))
		}
		return keys
	})
	rapid.Check(t, func(t *rapid.T) {
		ring, err := newRing(keysOf.Draw(t, "first"))
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var reader sync.WaitGroup
		reader.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, k := range ring.GetKeys() {
					if len(k) != keySize || !bytes.Equal(k, key(k[0])) {
						panic("a key is damaged")
					}
				}
			}
		})
		defer reader.Wait()
		defer close(stop)
		for range 3 {
			want, err := ringOf(keysOf.Draw(t, "want"))
			if err != nil {
				t.Fatal(err)
			}
			if err := turn(ring, want); err != nil {
				t.Fatal(err)
			}
			if got := ring.GetKeys(); !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("the ring is %x, want %x", got, want)
			}
		}
	})
}
