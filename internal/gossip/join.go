package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Join makes this node known to the members at these addresses (host:port), and through them to
// all. It is enough that one answers. ErrNameTaken: another member with this node's name is alive
// there; a node that comes back at another address within seconds of its death sees it too.
func (g *Gossip) Join(ctx context.Context, addrs []string) error {
	targets, err := g.targets(ctx, addrs)
	if len(targets) == 0 {
		if err == nil {
			err = errors.New("no address but this node's own is given: name another member")
		}
		return fmt.Errorf("join gossip: %w", err)
	}
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(targets))
	turns := make(chan struct{}, maxJoins)
	for _, target := range targets {
		if !g.spawn(func() {
			select {
			case turns <- struct{}{}:
				results <- g.exchange(ctx, target)
				<-turns
			case <-ctx.Done():
			}
		}) {
			return fmt.Errorf("join gossip: %w", net.ErrClosed)
		}
	}
	for range targets {
		select {
		case err = <-results:
		case <-ctx.Done():
			return fmt.Errorf("join gossip: %w", context.Cause(ctx))
		case <-g.life.Done():
			return fmt.Errorf("join gossip: %w", net.ErrClosed)
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("join gossip: none of %d addresses answered: %w", len(targets), err)
	}
	if at, taken := g.book.takenSince(began); taken {
		return fmt.Errorf("join gossip: %w: %s is alive at %s: choose another name, or wait until it is dead", ErrNameTaken, g.name, at)
	}
	return nil
}

// maxJoins bounds the attempts of one Join, or one round of Run, at a time.
const maxJoins = 3

// targets are the addresses other than this node's, each once, and the last one's error that is none.
func (g *Gossip) targets(ctx context.Context, addrs []string) (targets []netip.AddrPort, last error) {
	for _, a := range addrs {
		target, err := resolve(ctx, a)
		if err != nil {
			last = err
			continue
		}
		if target != g.addr && !slices.Contains(targets, target) {
			targets = append(targets, target)
		}
	}
	return targets, last
}

// exchange swaps whole states with the member at an address. It returns with ctx, though what it
// began may take a little longer.
func (g *Gossip) exchange(ctx context.Context, target netip.AddrPort) error {
	done := make(chan error, 1)
	if !g.spawn(func() {
		_, err := g.list.Join([]string{target.String()})
		done <- oneLine(err)
	}) {
		return net.ErrClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// oneLine unpacks memberlist's errors, which come as a list over several lines.
func oneLine(err error) error {
	var many interface{ WrappedErrors() []error }
	if errors.As(err, &many) && len(many.WrappedErrors()) > 0 {
		return many.WrappedErrors()[0]
	}
	return err
}

const (
	rejoinEvery = 2 * time.Second
	// conflicted is for how long a claim of this node's name from elsewhere is answered.
	conflicted = 2 * rejoinEvery
)

// Run looks for members that were lost, until ctx ends: about every two seconds it tries known
// addresses at which nobody is alive, those of dead members and those that peers names. That heals
// partitions, and finds the others after a restart. When all are alive it sends nothing.
func (g *Gossip) Run(ctx context.Context, peers func() []string) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.life.Done():
			return nil
		case <-time.After(rejoinEvery*3/4 + rand.N(rejoinEvery/2)):
		}
		g.seek(ctx, peers())
	}
}

// seek is one round of Run.
func (g *Gossip) seek(ctx context.Context, known []string) {
	if _, taken := g.book.takenSince(time.Now().Add(-conflicted)); taken {
		// This node may have come back at another address while the others thought it alive at the
		// old one. They do not listen before they have seen that it is dead there.
		g.speakSoon()
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	alive, dead := g.book.addresses()
	targets, err := g.targets(ctx, known)
	if err != nil {
		g.log.Debug("known address is of no use", "err", err)
	}
	for _, a := range dead {
		if a != g.addr && !slices.Contains(targets, a) {
			targets = append(targets, a)
		}
	}
	targets = choose(slices.DeleteFunc(targets, func(a netip.AddrPort) bool { return alive[a] }), len(alive))
	results := make(chan error, len(targets))
	for _, target := range targets {
		if !g.spawn(func() { results <- g.exchange(ctx, target) }) {
			return
		}
	}
	for range targets {
		if err := <-results; err != nil {
			g.log.Debug("lost member does not answer", "err", err)
		}
	}
}

// choose picks the addresses to try in one round, so that each is tried by about maxJoins of the
// alive members, however many they are, and none tries more than maxJoins.
func choose(targets []netip.AddrPort, alive int) []netip.AddrPort {
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	var chosen []netip.AddrPort
	for _, t := range targets {
		if len(chosen) < maxJoins && rand.IntN(max(alive, 1)) < maxJoins {
			chosen = append(chosen, t)
		}
	}
	return chosen
}
