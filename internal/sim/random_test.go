package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const histories = 200 // of a usual run

// TestHistories makes up stories and judges what came of them. The name of a story is its seed:
// SWARM_SIM_SEED tells one again, though goroutines may run in another order; SWARM_SIM_HISTORIES says
// how many.
func TestHistories(t *testing.T) {
	n := histories
	if testing.Short() {
		n /= 10
	}
	if text := os.Getenv("SWARM_SIM_HISTORIES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal("SWARM_SIM_HISTORIES:", err)
		}
	}
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = uint64(rand.Uint32())
	}
	if text := os.Getenv("SWARM_SIM_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal("SWARM_SIM_SEED:", err)
		}
		seeds = []uint64{seed}
	}
	size := scaleOf(t)
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			defer size.turn()()
			simulate(t, seed, func(c *cluster) {
				(&author{s: newScript(c, size), rnd: rand.New(rand.NewPCG(seed, 4))}).write()
			})
		})
	}
}

// author makes up a story as it goes.
type author struct {
	s       *script
	rnd     *rand.Rand
	damaged bool
}

func (a *author) tell(format string, args ...any) {
	a.s.c.t.Helper()
	a.s.tell(fmt.Sprintf(format, args...))
}

func (a *author) between(from, to int) int { return from + a.rnd.IntN(to-from+1) }

// some are the nodes that run, or those that are off; of racks all that have such a machine.
func (a *author) some(up bool) []string {
	return slices.DeleteFunc(slices.Clone(a.s.racks), func(name string) bool {
		return !slices.ContainsFunc(a.s.rack(name), func(n *node) bool { return (n.life() != nil) == up })
	})
}

// any is one of them; empty when there is none.
func (a *author) any(up bool) string {
	found := a.some(up)
	if len(found) == 0 {
		return ""
	}
	return found[a.rnd.IntN(len(found))]
}

// write tells the whole story.
func (a *author) write() {
	n := a.between(3, 7)
	if a.rnd.IntN(2) == 0 {
		a.tell("cluster %d compact=%d", n, a.between(20, 60))
	} else {
		a.tell("cluster %d", n)
	}
	if a.rnd.IntN(2) == 0 {
		a.tell("network loss=0.%02d double=0.%02d delay=%dus", a.rnd.IntN(8), a.rnd.IntN(20), a.between(100, 5000))
	}
	if a.rnd.IntN(2) == 0 {
		for i := range n {
			a.tell("skew n%d %+dms", i+1, a.between(-10_000, 10_000))
		}
	}
	slow := ""
	if a.rnd.IntN(3) == 0 { // longer than anybody would wait without being told of the end
		slow = fmt.Sprintf(" stops=%ds", a.between(8, 60))
	}
	a.tell("app web %d\napp db 2 single%s\nload %d", n, slow, a.between(2, 3))
	for range a.between(4, 9) {
		a.next()
		a.tell("wait %dms", a.pause())
	}
	a.finish(n)
}

// pause is short more often than long.
func (a *author) pause() int {
	if a.rnd.IntN(6) == 0 {
		return a.between(10_000, 60_000)
	}
	return a.between(0, 9_000)
}

// next is what happens next.
func (a *author) next() {
	up, off := a.any(true), a.any(false)
	many := len(a.some(true)) > 1
	switch k := a.rnd.IntN(20); {
	case k < 5 && off != "":
		a.tell("boot %s", off)
	case k < 7 && many:
		a.tell("%s %s", []string{"kill", "power-failure"}[a.rnd.IntN(2)], up)
	case k < 8 && many: // not for longer: pods run on, unfenced (ADR 0010)
		a.tell("shut-down %s\nwait %dms\nboot %s", up, a.between(200, 3000), up)
	case k < 12:
		a.partition()
	case k < 13:
		a.tell("one-way %s", a.split("->"))
	case k < 15:
		a.tell("heal")
	case k < 16 && up != "":
		a.tell("%s %s", []string{"disk-error", "disk-full", "disk-ok", "disk-ok"}[a.rnd.IntN(4)], up)
	case k < 18 && up != "":
		steps := []string{"fork", "forked", "hand over", "chunk", "handed over", "moved", "arriving", "arrived"}
		a.tell("trap %s %s", up, steps[a.rnd.IntN(len(steps))])
	case k < 19 && off == "" && !a.damaged:
		a.damage()
	case k < 20 && a.rnd.IntN(3) == 0:
		a.allAtOnce()
	}
}

// split puts all nodes on two sides, neither of them empty.
func (a *author) split(between string) string {
	var names []string
	for _, i := range a.rnd.Perm(len(a.s.racks)) {
		names = append(names, a.s.racks[i])
	}
	at := a.between(1, len(names)-1)
	return strings.Join(names[:at], " ") + " " + between + " " + strings.Join(names[at:], " ")
}

func (a *author) partition() {
	sides := a.split("|")
	if names := strings.Fields(sides); a.rnd.IntN(4) == 0 && names[0] != "|" && names[1] != "|" {
		sides = names[0] + " | " + strings.Join(names[1:], " ") // three of them
	}
	a.tell("partition %s", sides)
}

// damage spoils the disk of one, while all others are well: what two lose together is lost.
func (a *author) damage() {
	a.damaged = true
	a.calm()
	a.tell("await converged within=90s\nwait 3s")
	n := a.any(true)
	a.tell("kill %s\ndamage %s %s\nboot %s\nawait converged within=90s", n, n, []string{"flip", "shrink"}[a.rnd.IntN(2)], n)
}

// allAtOnce is the end of power for everybody, and its return, in any order.
func (a *author) allAtOnce() {
	for _, name := range a.some(true) {
		a.tell("power-failure %s", name)
	}
	for _, i := range a.rnd.Perm(len(a.s.racks)) {
		a.tell("wait %dms\nboot n%d", a.rnd.IntN(4000), i+1)
	}
}

// calm ends all trouble.
func (a *author) calm() {
	c := a.s.c
	c.mu.Lock()
	clear(c.traps)
	c.mu.Unlock()
	a.tell("heal\ndisk-ok all")
	for _, name := range a.some(false) {
		a.tell("boot %s", name)
	}
}

// finish lets all be well again, and sees that it is.
func (a *author) finish(n int) {
	a.calm()
	a.tell("wait 5s\nload ends\nawait converged within=60s\nawait pods web %d within=60s\nawait pods db 2 within=120s", n)
	a.s.crowd()
	a.s.c.converge(a.s.duration("30s"))
	a.s.c.hist.end(a.s.c.up()[0].store())
}
