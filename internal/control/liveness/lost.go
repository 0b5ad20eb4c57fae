package liveness

import (
	"context"
	"fmt"
	"slices"
)

// watchLost has nodes judged that have lost pods in a merge, until ctx ends.
func (c *Controller) watchLost(ctx context.Context) {
	for c.cfg.Lost != nil {
		changed := c.cfg.Lost.Changed()
		c.reviewLost()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// reviewLost has those nodes judged again; some of them may have no Node.
func (c *Controller) reviewLost() {
	if c.cfg.Lost != nil {
		for _, name := range c.cfg.Lost.Nodes() {
			c.loop.Add(name)
		}
	}
}

// endLost says that a node's lost pods have ended, when those may be replaced that are the API's: the node
// has had the time to stop them, or is fenced. As long as it can, it says so itself.
func (c *Controller) endLost(ctx context.Context, name string, v Verdict) error {
	if !v.Force || !c.hasLost(name) {
		return nil
	}
	if err := c.cfg.Lost.End(ctx, name); err != nil {
		return fmt.Errorf("end lost pods of node %s: %w", name, err)
	}
	return nil
}

func (c *Controller) hasLost(name string) bool {
	return c.cfg.Lost != nil && slices.Contains(c.cfg.Lost.Nodes(), name)
}

// departed ends the lost pods of a node that has no Node, in time.
func (c *Controller) departed(ctx context.Context, name string) error {
	if !c.hasLost(name) {
		return nil
	}
	v, err := c.cfg.Bench.Departed(name)
	if err != nil {
		return fmt.Errorf("judge node %s, which has no Node: %w", name, err)
	}
	if !v.Again.IsZero() {
		c.loop.AddAfter(name, max(v.Again.Sub(c.cfg.Now()), 0))
	}
	return c.endLost(ctx, name, v)
}
