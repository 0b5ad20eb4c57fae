package state

import (
	"os"
	"testing"
	"time"
)

// crashAt makes node i lose power when its replica is at a step: what is on disk then is all that
// is left, and nothing more is sent. The channel closes when it is there.
func (c *sim) crashAt(i int, step string) (there <-chan struct{}, crash, proceed func()) {
	c.t.Helper()
	n := c.nodes[name(i)]
	reached, release := make(chan struct{}), make(chan struct{})
	image := c.t.TempDir()
	passed := false
	c.step[n.name] = func(at string) {
		if at != step || passed {
			return
		}
		passed = true
		if err := os.CopyFS(image+"/state", os.DirFS(n.dir)); err != nil {
			c.t.Error(err)
		}
		close(reached)
		<-release
	}
	return reached, func() {
		c.net.Kill(n.name)
		close(release)
		c.kill(i)
		if err := os.RemoveAll(n.dir); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Rename(image+"/state", n.dir); err != nil {
			c.t.Fatal(err)
		}
	}, func() { close(release) }
}

func (c *sim) await(there <-chan struct{}, step string) {
	c.t.Helper()
	c.within(time.Minute, "the step "+step, func() bool {
		select {
		case <-there:
			return true
		default:
			return false
		}
	})
}

// Power is lost at every step of a takeover, and of joining the others again.
func TestPowerLoss(t *testing.T) {
	for _, step := range []string{"fork", "forked", "hand over", "chunk", "handed over", "moved", "arriving", "arrived"} {
		t.Run(step, func(t *testing.T) {
			simulate(t, true, func(c *sim) {
				s := c.start(0, "")
				c.start(1, s.Status().Lineage.ID)
				there, crash, _ := c.crashAt(2, step)
				c.start(2, s.Status().Lineage.ID)
				c.steady(3)
				c.load(20, 0, 1, 2)
				c.net.Split(name(2))
				forking := step == "fork" || step == "forked"
				if forking {
					c.await(there, step)
					crash()
					c.restart(2)
				}
				c.load(20, 2)
				c.load(20, 0, 1)
				c.net.Cut(nil)
				if !forking {
					c.await(there, step)
					c.load(5, 0)
					crash()
					c.load(5, 1)
					c.restart(2)
				}
				t.Logf("all well after %v", c.steady(3))
				c.load(5, 2)
				c.equal()
			})
		})
	}
}

// The winner is lost for good while a replica is on its way to it: that one goes back to where it
// came from and goes on with what it has.
func TestWinnerIsLost(t *testing.T) {
	for _, crashes := range []bool{false, true} {
		simulate(t, true, func(c *sim) {
			s := c.start(0, "")
			there, crash, proceed := c.crashAt(1, "moved")
			c.start(1, s.Status().Lineage.ID)
			c.steady(2)
			c.load(20, 0, 1)
			c.net.Split(name(1))
			c.load(20, 0)
			c.load(20, 1)
			c.net.Cut(nil)
			c.await(there, "moved")
			c.kill(0)
			if crashes {
				crash()
				c.restart(1)
			} else {
				proceed()
			}
			c.write(1, "/alone", "x", 40*time.Second)
			c.restart(0)
			c.steady(2)
			c.equal()
		})
	}
}
