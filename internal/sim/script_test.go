package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
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
//	app NAME REPLICAS [single]
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
type script struct {
	c       *cluster
	names   map[string]string
	servers map[string]string // by node, before the damage
	clients *clients
	keys    int
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

// node finds a node by name.
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

func (s *script) list(names []string) []*node {
	var out []*node
	for _, name := range names {
		if name == "all" {
			return s.c.nodes
		}
		out = append(out, s.node(name))
	}
	return out
}

// tell runs a story.
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
		"one-way": s.oneWay, "heal": func(command) { s.c.net.sever(nil) }, "network": s.network, "skew": s.skew,
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
	for range s.number(x.arg(0)) {
		s.c.add()
	}
	s.c.say("together after %v", s.c.converge(time.Minute))
}

func (s *script) join(x command) {
	n := s.c.add()
	took := s.c.within(s.limit(x, 10*time.Second), n.name+" has the state", func() bool {
		st := n.store().Status()
		return st.Leader != "" && !st.Joining && len(st.Replicas) == len(s.c.nodes) && len(records(n.store().View())) == len(s.c.nodes)
	})
	s.c.say("%s has joined after %v", n.name, took)
}

func (s *script) let(x command) {
	s.c.within(10*time.Second, "somebody leads", func() bool { return s.c.leader() != nil })
	lead := s.c.leader()
	switch x.arg(2) {
	case "leader":
		s.names[x.arg(0)] = lead.name
	case "follower":
		for _, n := range s.c.up() {
			if n != lead && !slices.Contains(s.values(), n.name) {
				s.names[x.arg(0)] = n.name
				break
			}
		}
	default:
		s.fail("let %v", x.args)
	}
	s.c.say("%s is %s", x.arg(0), s.names[x.arg(0)])
}

func (s *script) values() []string {
	var out []string
	for _, v := range s.names {
		out = append(out, v)
	}
	return out
}

func (s *script) stop(power bool) func(command) {
	return func(x command) {
		s.remember()
		for _, n := range s.list(x.args) {
			if err := n.stop(power); err != nil {
				s.fail("%v", err)
			}
		}
	}
}

func (s *script) shutDown(x command) {
	for _, n := range s.list(x.args) {
		if err := n.shutDown(); err != nil {
			s.fail("%v", err)
		}
	}
}

func (s *script) boot(x command) {
	for _, n := range s.list(x.args) {
		if err := n.start(); err != nil {
			s.fail("boot %s: %v", n.name, err)
		}
	}
}

func (s *script) restart(x command) {
	for _, n := range s.list(x.args) {
		if err := n.shutDown(); err != nil {
			s.fail("%v", err)
		}
		elapse(time.Second)
		if err := n.boot(); err != nil {
			s.fail("boot %s: %v", n.name, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := n.store().Ready(ctx); err != nil {
			s.fail("%s is not ready: %v", n.name, err)
		}
		cancel()
	}
}

func (s *script) trap(x command) {
	n := s.node(x.arg(0))
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.traps[n.name] = strings.Join(x.args[1:], " ")
}

func (s *script) partition(x command) {
	group, k := map[string]int{}, 0
	for _, w := range x.args {
		if w == "|" {
			k++
		} else {
			group[s.node(w).name] = k
		}
	}
	s.c.net.sever(func(from, to string) bool { return group[from] != group[to] })
}

func (s *script) oneWay(x command) {
	at := slices.Index(x.args, "->")
	if at < 0 {
		s.fail("one-way %v", x.args)
	}
	from, to := map[string]bool{}, map[string]bool{}
	for _, w := range x.args[:at] {
		from[s.node(w).name] = true
	}
	for _, w := range x.args[at+1:] {
		to[s.node(w).name] = true
	}
	s.c.net.sever(func(a, b string) bool { return from[a] && to[b] })
}

func (s *script) network(x command) {
	n := s.c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, v := range x.opts {
		p, err := strconv.ParseFloat(v, 64)
		switch {
		case k == "delay":
			n.delay = s.duration(v)
		case err != nil:
			s.fail("%v", err)
		case k == "loss":
			n.loss = p
		case k == "double":
			n.double = p
		}
	}
}

func (s *script) skew(x command) {
	for _, n := range s.list(x.args[:1]) {
		n.skew.Store(int64(s.duration(x.arg(1))))
	}
}

func (s *script) disk(err error) func(command) {
	return func(x command) {
		for _, n := range s.list(x.args) {
			n.drive.fail(breaks(err))
		}
	}
}

// breaks makes every write fail; nil: none.
func breaks(err error) func(disk.Op, string) error {
	if err == nil {
		return nil
	}
	return func(op disk.Op, name string) error {
		if op == disk.Sync && errors.Is(err, syscall.ENOSPC) {
			return nil
		}
		return fmt.Errorf("write %s: %w", name, err)
	}
}

func (s *script) damage(x command) {
	n := s.node(x.arg(0))
	how := map[string]func(string, []byte) []byte{"flip": flip, "shrink": shrink}[x.arg(1)]
	if how == nil || n.life() != nil {
		s.fail("damage %v, while it is off", x.args)
	}
	if err := n.drive.damage(how); err != nil {
		s.fail("%v", err)
	}
}

func (s *script) wipe(x command) {
	n := s.node(x.arg(0))
	if n.life() != nil {
		s.fail("wipe %s while it is off", n.name)
	}
	n.lineage = s.c.up()[0].store().Status().Lineage.ID
	s.c.hist.swept = true
	if err := n.drive.wipe(); err != nil {
		s.fail("%v", err)
	}
}

func (s *script) load(x command) {
	if x.arg(0) == "ends" {
		s.clients.end()
		s.clients = nil
		return
	}
	s.clients = s.c.load(s.number(x.arg(0)))
}

func (s *script) write(x command) {
	took := s.c.write(s.node(x.arg(3)), x.arg(0), x.arg(1), s.limit(x, 15*time.Second))
	s.c.say("acknowledged after %v", took)
}

func (s *script) refused(x command) {
	ctx, cancel := context.WithTimeout(context.Background(), s.limit(x, time.Second))
	defer cancel()
	if err := s.c.try(ctx, s.node(x.arg(3)), x.arg(0), x.arg(1)); err == nil {
		s.fail("%s was acknowledged", x.arg(0))
	}
}

func (s *script) fill(x command) {
	through := s.list(x.args[2:])
	for i := range s.number(x.arg(0)) {
		s.keys++
		s.c.write(through[i%len(through)], fmt.Sprintf("/f/%04d", s.keys), fmt.Sprint("f", s.keys), 15*time.Second)
	}
}

// eventually does something through a node that works again.
func (s *script) eventually(what string, f func(st *state.Store) error) {
	var err error
	s.c.within(15*time.Second, what, func() bool {
		err = f(s.c.up()[0].store())
		return err == nil
	})
}

func (s *script) app(x command) {
	a := app{Name: x.arg(0), Replicas: s.number(x.arg(1)), Single: x.arg(2) == "single"}
	s.eventually("app "+a.Name, func(st *state.Store) error {
		return put(context.Background(), st, appsPrefix+a.Name, a, state.Any)
	})
}

func (s *script) fence(x command) {
	n := s.node(x.arg(0))
	if n.life() != nil {
		s.c.mu.Lock()
		s.c.wrong[n.name] = true
		s.c.mu.Unlock()
	}
	err := put(context.Background(), s.node(x.arg(2)).store(), nodesPrefix+n.name, record{n.name, n.addr, true}, state.Any)
	if err != nil {
		s.fail("%v", err)
	}
}

func (s *script) await(x command) {
	limit := s.limit(x, time.Minute)
	var took time.Duration
	switch x.arg(0) {
	case "writable":
		took = s.c.write(s.node(x.arg(1)), "/writable", s.c.fresh("w"), limit)
	case "converged":
		took = s.c.converge(limit)
	case "pods":
		took = s.awaitPods(x, limit)
	case "lost":
		n := s.node(x.arg(1))
		took = s.c.within(limit, n.name+" is lost", func() bool { return n.life() == nil })
	default:
		s.fail("await %v", x.args)
	}
	s.c.say("after %v", took)
}

func (s *script) awaitPods(x command, limit time.Duration) time.Duration {
	on := s.c.up()
	if x.arg(3) == "on" {
		on = s.list(x.args[4:])
	}
	return s.c.within(limit, fmt.Sprintf("%s pods of %s", x.arg(2), x.arg(1)), func() bool {
		n := 0
		for _, node := range on {
			for name := range node.pods.all() {
				if strings.HasPrefix(name, x.arg(1)+"-") {
					n++
				}
			}
		}
		return n == s.number(x.arg(2))
	})
}

func (s *script) expect(x command) {
	switch x.arg(0) {
	case "lineages":
		all := map[string]bool{}
		for _, n := range s.c.up() {
			all[n.store().Status().Lineage.ID] = true
		}
		if len(all) != s.number(x.arg(1)) {
			s.c.dump()
			s.fail("%d lineages", len(all))
		}
	case "new-server":
		n := s.node(x.arg(1))
		if now := n.store().Status().Server; now == s.servers[n.name] || s.servers[n.name] == "" {
			s.fail("%s is still %s", n.name, now)
		}
	default:
		n := s.node(x.arg(3))
		got, ok := n.store().View().Get(x.arg(0))
		if !ok || string(got.Value) != x.arg(1) {
			s.fail("%s on %s is %+v", x.arg(0), n.name, got)
		}
	}
}

// remember notes under which names replicas are known.
func (s *script) remember() {
	for _, n := range s.c.up() {
		s.servers[n.name] = n.store().Status().Server
	}
}

func (s *script) never(x command) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for name := range s.c.places { // a second place was an error at once
		if strings.HasPrefix(name, x.arg(1)+"-") {
			return
		}
	}
	s.fail("no pod of %s ever ran", x.arg(1))
}

func (s *script) conflicts(x command) {
	n, found := 0, false
	for c, err := range machine.Conflicts(s.c.up()[0].store().View()) {
		if err != nil {
			s.fail("%v", err)
		}
		if !strings.HasPrefix(c.Key, podsPrefix) { // the fakes' own
			n++
			s.c.say("conflict over %s: kept %q, lost %q", c.Key, c.Kept.Value, c.Lost.Value)
		}
		found = found || c.Key == x.arg(1) && string(c.Lost.Value) == x.arg(2)
	}
	if x.arg(0) == "contain" && !found || x.arg(0) != "contain" && n != s.number(x.arg(0)) {
		s.fail("conflicts %v: there are %d", x.args, n)
	}
}
