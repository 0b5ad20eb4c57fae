package sim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// script is a story being told. Its words, one command a line, # begins a comment:
//
//	cluster N [compact=ENTRIES] [freeze]     N nodes that have joined one another: n1, n2 ...
//	join [within=D]                          one more
//	let NAME = leader|follower               NAME stands for that node from now on
//	kill|power-failure|shut-down|boot NODE...
//	restart NODE...                          in an orderly way, one after another
//	trap NODE STEP                           power fails when its store is at that step
//	await lost NODE [within=D]               the trap has sprung
//	partition A B | C ...                    nothing passes between the groups
//	one-way A B -> C ...                     nothing passes in that direction
//	heal
//	network [loss=P] [double=P] [delay=D]
//	skew NODE|all ±D
//	disk-error|disk-full|disk-ok NODE...
//	damage NODE flip|shrink                  of its log, while it is off
//	wipe NODE                                a new disk, while it is off
//	load N | load ends                       clients that do everything, through all nodes
//	write KEY VALUE through NODE [within=D]  until it is acknowledged
//	refused KEY VALUE through NODE [within=D]  never acknowledged
//	fill N through NODE...                   N keys of their own, acknowledged
//	app NAME REPLICAS [single] [stops=D] [through=NODE]
//	fence NODE through NODE
//	wait D
//	await writable NODE [within=D]
//	await converged [within=D]
//	await pods APP N [within=D] [on NODE...]
//	expect KEY VALUE on NODE
//	expect lineages N                        that live nodes follow
//	expect new-server NODE                   since the damage
//	never doubled APP                        and it did run
//	conflicts contain KEY VALUE | conflicts N
//
// At scale (SWARM_SIM_NODES=50) the same story is told of more machines: each of its N nodes is a rack of
// 50/N machines, and there is one more app, with SWARM_SIM_PODS pods per machine (30), that runs before the
// trouble begins and must run again in the end. What a word means then:
//
//   - The whole rack: partition, one-way, kill and power-failure (all at the same instant), boot (all that are
//     off), shut-down, skew, fence (the person means the rack), load (through any machine), pods on NODE, and
//     await writable: each of its machines that runs acknowledges a write within the time.
//   - restart: each machine of the rack, one after another, as an upgrade does.
//   - trap: whichever machine of the rack is first at the step loses power, it alone; await lost awaits that one.
//   - One machine, and the others of its rack stand by on its side: damage, wipe, the words about disks,
//     through, expect. It is the first of the rack; for a name that was let, the leader itself, or the first
//     of the rack that the name stands for.
//   - let: follower is the first machine of a rack that is neither the leader's nor has another name. Where a
//     word means the whole rack, a name stands for the rack of its machine.
//
// Times are those of the story, but for one: gossip knows later of the dead where there are many members, and nobody
// takes over or replaces pods before. It is 2.6 s among 5 and 4.1 s among 50 (ADR 0006); where a fifth is left 8 s and
// 13 s (gossip/tuning.go). So await writable and await pods have that much more of 50 machines, 1.5 s or 5 s.
//
// Votes are spread as in a small cluster: the first machines of all racks join first, then the second ones, and get
// their votes in that order. Of two racks the one that begins has three of five. A story with join says by itself how
// many machines there are, and is told as it stands.
type script struct {
	c       *cluster
	scale   scale
	names   map[string]string // of machines
	racks   []string
	servers map[string]string // by node, before the damage
	clients *clients
	keys    int
}

// scale is how large a story is told; the zero scale is as it stands.
type scale struct{ machines, pods int }

const usualPods = 30 // per machine, of a story told at scale

func scaleOf(t *testing.T) scale {
	t.Helper()
	number := func(name string, or int) int {
		text := os.Getenv(name)
		if text == "" {
			return or
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	x := scale{machines: number("SWARM_SIM_NODES", 0)}
	if x.machines > 0 {
		x.pods = number("SWARM_SIM_PODS", usualPods)
	}
	return x
}

// atOnce bounds how many stories are told at scale at once, whatever -parallel says: each needs half a gigabyte.
var atOnce = make(chan struct{}, 4)

// turn waits until one more may be told, and returns what is to be done after it.
func (x scale) turn() (end func()) {
	if x.machines == 0 {
		return func() {}
	}
	atOnce <- struct{}{}
	return func() { <-atOnce }
}

func newScript(c *cluster, x scale) *script {
	return &script{c: c, scale: x, names: map[string]string{}, servers: map[string]string{}}
}

// command is one line: words, and options.
type command struct {
	verb string
	args []string
	opts map[string]string
}

func parse(line string) command {
	line, _, _ = strings.Cut(line, "#")
	x := command{opts: map[string]string{}}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok && k != "" && v != "" {
			x.opts[k] = v
		} else if x.verb == "" {
			x.verb = w
		} else {
			x.args = append(x.args, w)
		}
	}
	return x
}

func (s *script) fail(format string, args ...any) {
	s.c.t.Helper()
	s.c.t.Fatalf(format, args...)
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.fail("%v", err)
	}
	return d
}

func (x command) arg(i int) string {
	if i < len(x.args) {
		return x.args[i]
	}
	return ""
}

// limit is within=, or else.
func (s *script) limit(x command, or time.Duration) time.Duration {
	if d, ok := x.opts["within"]; ok {
		return s.duration(d)
	}
	return or
}

func (s *script) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.fail("%v", err)
	}
	return n
}

// node finds a machine by name; a rack's name is that of its first.
func (s *script) node(name string) *node {
	s.c.t.Helper()
	if other, ok := s.names[name]; ok {
		name = other
	}
	i := slices.IndexFunc(s.c.nodes, func(n *node) bool { return n.name == name })
	if i < 0 {
		s.fail("there is no node %q", name)
	}
	return s.c.nodes[i]
}

// ones are the machines with these names.
func (s *script) ones(names []string) []*node {
	var out []*node
	for _, name := range names {
		if name == "all" {
			return s.c.nodes
		}
		out = append(out, s.node(name))
	}
	return out
}

// rack is all machines of the rack that a name stands for.
func (s *script) rack(name string) []*node {
	s.c.t.Helper()
	if name == "all" {
		return s.c.nodes
	}
	first := s.node(name)
	return slices.DeleteFunc(slices.Clone(s.c.nodes), func(n *node) bool { return n.rack != first.rack })
}

func (s *script) all(names []string) []*node {
	var out []*node
	for _, name := range names {
		out = append(out, s.rack(name)...)
	}
	return out
}

// those are the machines of a rack that run, or that are off; a story must not say what is so already.
func (s *script) those(name string, up bool) []*node {
	s.c.t.Helper()
	found := slices.DeleteFunc(s.rack(name), func(n *node) bool { return (n.life() != nil) != up })
	if len(found) == 0 {
		s.fail("no machine of %s is %s", name, map[bool]string{true: "up", false: "off"}[up])
	}
	return found
}

// each does something to several machines at once.
func (s *script) each(nodes []*node, f func(n *node) error) {
	s.c.t.Helper()
	errs := make([]error, len(nodes))
	var work sync.WaitGroup
	for i, n := range nodes {
		work.Go(func() { errs[i] = f(n) })
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		s.c.dump()
		s.fail("%v", err)
	}
}

// perform tells a whole story.
func (s *script) perform(story string) {
	s.c.t.Helper()
	if slices.ContainsFunc(strings.Split(story, "\n"), func(line string) bool { return parse(line).verb == "join" }) {
		s.scale = scale{}
	}
	s.tell(story)
	s.crowd()
	if s.c.together() {
		s.c.hist.end(s.c.up()[0].store())
	}
}

// tell goes on with a story.
func (s *script) tell(story string) {
	s.c.t.Helper()
	for i, line := range strings.Split(story, "\n") {
		x := parse(line)
		if x.verb == "" {
			continue
		}
		s.c.say("%s", strings.TrimSpace(line))
		do, ok := s.verbs()[x.verb]
		if !ok {
			s.fail("line %d: there is no %q", i+1, x.verb)
		}
		do(x)
	}
}

func (s *script) verbs() map[string]func(command) {
	return map[string]func(command){
		"cluster": s.cluster, "join": s.join, "let": s.let, "kill": s.stop(false), "power-failure": s.stop(true),
		"shut-down": s.shutDown, "boot": s.boot, "restart": s.restart, "trap": s.trap, "partition": s.partition,
		"one-way": s.oneWay, "heal": func(command) { s.c.net.Sever(nil) }, "network": s.network, "skew": s.skew,
		"disk-error": s.disk(syscall.EIO), "disk-full": s.disk(syscall.ENOSPC), "disk-ok": s.disk(nil), "damage": s.damage,
		"wipe": s.wipe, "load": s.load, "write": s.write, "refused": s.refused, "fill": s.fill, "app": s.app, "fence": s.fence,
		"wait": func(x command) { elapse(s.duration(x.arg(0))) }, "await": s.await, "expect": s.expect, "never": s.never,
		"conflicts": s.conflicts,
	}
}

func (s *script) cluster(x command) {
	if k := x.opts["compact"]; k != "" {
		s.c.compact = uint64(s.number(k))
	}
	s.c.freeze = x.arg(1) == "freeze"
	racks := s.number(x.arg(0))
	machines := max(racks, s.scale.machines)
	for row := 1; len(s.c.nodes) < machines; row++ {
		for i := range racks {
			if machines > racks && s.votes() < 5 { // else the quickest of any rack would get them
				s.c.within(10*time.Second, "votes are spread", s.spread)
			}
			rack := fmt.Sprint("n", i+1)
			switch size := (i+1)*machines/racks - i*machines/racks; { // two of four racks are half of all
			case row > size:
			case row == 1:
				s.racks = append(s.racks, rack)
				s.c.add(rack, rack)
			default:
				s.c.add(fmt.Sprintf("r%02d%s", row, rack), rack)
			}
		}
	}
	s.c.say("together after %v", s.c.converge(time.Minute))
	if s.scale.pods > 0 {
		s.tell(fmt.Sprintf("app %s %d", crowdApp, s.scale.pods*machines))
		s.crowd()
	}
}

// votes is how many machines have one, as far as the leader knows.
func (s *script) votes() int {
	k := 0
	if lead := s.c.leader(); lead != nil {
		for _, r := range lead.store().Status().Replicas {
			if r.Votes {
				k++
			}
		}
	}
	return k
}

// spread reports whether as many machines have a vote as may.
func (s *script) spread() bool {
	n := len(s.c.nodes)
	return n == 0 || s.c.together() && (s.votes() >= min(n, 3) && n < 5 || s.votes() == 5)
}

// stretch is how much later gossip knows of the dead than in a cluster of five: with 30 of 50 dead the last survivor was
// writable after 8.4 to 11.4 s in 42 runs, and once later.
func (s *script) stretch() time.Duration {
	n := len(s.c.nodes)
	if n <= len(s.racks) {
		return 0
	}
	more := 3 * time.Second
	if 5*len(s.c.up()) <= n {
		more = 5 * time.Second
	}
	return more * time.Duration(n-5) / (50 - 5)
}

// crowdApp is the app that every machine at scale is busy with.
const crowdApp = "crowd"

// crowd waits until all of its pods run, and the state says so.
func (s *script) crowd() {
	s.c.t.Helper()
	if s.scale.pods == 0 {
		return
	}
	want := s.scale.pods * len(s.c.nodes)
	s.c.say("the crowd of %d runs after %v", want, s.c.within(time.Minute, fmt.Sprintf("the crowd of %d runs", want), func() bool {
		if s.count(crowdApp, s.c.up()) != want {
			return false
		}
		said := 0
		list(s.c.up()[0].store().View(), podsPrefix, func(_ *state.Entry, p pod) {
			if p.App == crowdApp && p.Running && !p.Ending && s.node(p.Node).pods.all()[p.Name] == p.UID {
				said++
			}
		})
		return said == want
	}))
}
