// Package loop is one reconcile loop: keys go in, a function is called once per key until it
// succeeds.
//
// It is a thin skin over client-go's workqueue, so it has that queue's three properties. A key is
// worked on by one worker at a time. A key added while it is worked on is worked on once more
// afterwards. A key added many times while waiting is worked on once. Metrics come from the same
// queue, under the loop's name, wherever a workqueue metrics provider is linked in.
package loop
