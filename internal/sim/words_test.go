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

	"github.com/podman-swarm/podman-swarm/internal/simnet"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

func (s *script) join(x command) {
	name := fmt.Sprint("n", len(s.c.nodes)+1)
	n := s.c.add(name, name)
	s.racks = append(s.racks, name)
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
		taken := []string{lead.rack}
		for _, name := range s.names {
			taken = append(taken, s.node(name).rack)
		}
		for _, n := range s.c.up() {
			if !slices.Contains(taken, n.rack) {
				s.names[x.arg(0)] = n.name
				break
			}
		}
	default:
		s.fail("let %v", x.args)
	}
	s.c.say("%s is %s", x.arg(0), s.names[x.arg(0)])
}

// stop is without a word, and at one instant: no time passes here.
func (s *script) stop(power bool) func(command) {
	return func(x command) {
		s.remember()
		for _, name := range x.args {
			for _, n := range s.those(name, true) {
				if err := n.stop(power); err != nil {
					s.fail("%v", err)
				}
			}
		}
	}
}

func (s *script) shutDown(x command) {
	for _, name := range x.args {
		s.each(s.those(name, true), (*node).shutDown)
	}
}

func (s *script) boot(x command) {
	for _, name := range x.args {
		s.each(s.those(name, false), func(n *node) error {
			if err := n.start(); err != nil {
				return fmt.Errorf("boot %s: %w", n.name, err)
			}
			return nil
		})
	}
}

func (s *script) restart(x command) {
	for _, n := range s.all(x.args) {
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
	s.c.traps[n.rack] = strings.Join(x.args[1:], " ")
}

func (s *script) partition(x command) {
	group, k := map[string]int{}, 0
	for _, w := range x.args {
		if w == "|" {
			k++
			continue
		}
		for _, n := range s.rack(w) {
			group[n.name] = k
		}
	}
	s.c.net.Sever(func(from, to string) bool { return group[from] != group[to] })
}

func (s *script) oneWay(x command) {
	at := slices.Index(x.args, "->")
	if at < 0 {
		s.fail("one-way %v", x.args)
	}
	from, to := map[string]bool{}, map[string]bool{}
	for _, n := range s.all(x.args[:at]) {
		from[n.name] = true
	}
	for _, n := range s.all(x.args[at+1:]) {
		to[n.name] = true
	}
	s.c.net.Sever(func(a, b string) bool { return from[a] && to[b] })
}

func (s *script) network(x command) {
	s.c.net.Change(func(q *simnet.Quality) {
		for k, v := range x.opts {
			p, err := strconv.ParseFloat(v, 64)
			switch {
			case k == "delay":
				q.Delay = s.duration(v)
			case err != nil:
				s.fail("%v", err)
			case k == "loss":
				q.Loss = p
			case k == "double":
				q.Double = p
			}
		}
	})
}

func (s *script) skew(x command) {
	for _, n := range s.rack(x.arg(0)) {
		n.skew.Store(int64(s.duration(x.arg(1))))
	}
}

func (s *script) disk(err error) func(command) {
	return func(x command) {
		for _, n := range s.ones(x.args) {
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
	through := s.ones(x.args[2:])
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
	if d := x.opts["stops"]; d != "" {
		a.Stops = s.duration(d)
	}
	s.eventually("app "+a.Name, func(st *state.Store) error {
		if via := x.opts["through"]; via != "" {
			st = s.node(via).store()
		}
		return put(context.Background(), st, appsPrefix+a.Name, a, state.Any)
	})
}

func (s *script) fence(x command) {
	for _, n := range s.rack(x.arg(0)) {
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
}

func (s *script) await(x command) {
	limit := s.limit(x, time.Minute)
	var took time.Duration
	switch x.arg(0) {
	case "writable":
		took = s.awaitWritable(x, limit)
	case "converged":
		took = s.c.converge(limit)
	case "pods":
		took = s.awaitPods(x, limit)
	case "lost":
		took = s.c.within(limit, x.arg(1)+" is lost", func() bool {
			return slices.ContainsFunc(s.rack(x.arg(1)), func(n *node) bool { return n.life() == nil })
		})
	default:
		s.fail("await %v", x.args)
	}
	s.c.say("after %v", took)
}

// awaitWritable writes through every machine of a rack at once.
func (s *script) awaitWritable(x command, limit time.Duration) time.Duration {
	start := time.Now()
	limit += s.stretch()
	one := s.node(x.arg(1))
	s.each(s.those(x.arg(1), true), func(n *node) error {
		key := "/writable"
		if n != one {
			key += "/" + n.name
		}
		err := s.c.acknowledged(n, key, s.c.fresh("w"), limit)
		s.c.log.Info("writable", "node", n.name, "after", time.Since(start), "err", err)
		return err
	})
	return time.Since(start)
}

func (s *script) awaitPods(x command, limit time.Duration) time.Duration {
	on := s.c.up
	if x.arg(3) == "on" {
		there := s.all(x.args[4:])
		on = func() []*node { return there }
	}
	return s.c.within(limit+s.stretch(), fmt.Sprintf("%s pods of %s", x.arg(2), x.arg(1)), func() bool {
		return s.count(x.arg(1), on()) == s.number(x.arg(2))
	})
}

// count is how many pods of an app run on machines.
func (s *script) count(app string, on []*node) int {
	k := 0
	for _, n := range on {
		for name := range n.pods.all() {
			if strings.HasPrefix(name, app+"-") {
				k++
			}
		}
	}
	return k
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
