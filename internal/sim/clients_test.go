package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// clients write, swap, delete and read a few keys through all nodes, and write keys of their own.
type clients struct {
	c    *cluster
	stop context.CancelFunc
	work sync.WaitGroup
}

const (
	sharedKeys = 6
	patience   = 6 * time.Second // of a client, for one answer
)

// load starts so many clients.
func (c *cluster) load(n int) *clients {
	ctx, stop := context.WithCancel(context.Background())
	x := &clients{c: c, stop: stop}
	c.loads = append(c.loads, x)
	for i := range n {
		rnd := rand.New(rand.NewPCG(c.rnd.Uint64(), uint64(i)))
		x.work.Go(func() { x.run(ctx, rnd) })
	}
	return x
}

// end ends them; what is under way gets its answer first.
func (x *clients) end() {
	x.stop()
	x.work.Wait()
}

func (x *clients) run(ctx context.Context, rnd *rand.Rand) {
	known := map[string]state.Entry{} // as this client saw them last
	n := x.c.nodes[rnd.IntN(len(x.c.nodes))]
	for ctx.Err() == nil {
		if rnd.IntN(8) == 0 || n.store() == nil {
			n = x.c.nodes[rnd.IntN(len(x.c.nodes))]
		}
		o := x.next(rnd, known)
		try, cancel := context.WithTimeout(context.Background(), patience)
		_ = x.c.hist.do(try, n, o)
		cancel()
		switch {
		case o.outcome == done && o.kind == opDelete:
			delete(known, o.key)
		case o.outcome == done && o.kind != opRead:
			known[o.key] = state.Entry{Value: []byte(o.value), ModRevision: o.revision}
		case o.outcome == done && o.got != "":
			known[o.key] = state.Entry{Value: []byte(o.got), ModRevision: o.revision}
		case o.outcome != unknown:
			delete(known, o.key)
		}
		pause(ctx, time.Duration(50+rnd.IntN(500))*time.Millisecond)
	}
}

func (x *clients) next(rnd *rand.Rand, known map[string]state.Entry) *op {
	o := &op{key: fmt.Sprint("/k/", rnd.IntN(sharedKeys)), value: x.c.fresh("v"), expect: state.Any}
	switch k := rnd.IntN(20); {
	case k < 6:
		o.kind, o.value = opRead, ""
	case k < 12:
		e := known[o.key]
		o.kind, o.want, o.expect = opSwap, string(e.Value), e.ModRevision
	case k < 15:
		o.kind = opPut
	case k < 16:
		o.kind, o.value = opDelete, ""
	default:
		o.kind, o.key = opPut, "/u/"+o.value
	}
	return o
}
