package lead

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// office is a leadership that a test gives and takes.
type office struct {
	mu      sync.Mutex
	leads   bool
	changed chan struct{}
}

func (o *office) Leads() (bool, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.leads, o.changed
}

func (o *office) set(leads bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.leads = leads
	close(o.changed)
	o.changed = make(chan struct{})
}

// Leadership comes and goes a hundred times: the duty runs while it is there, once at a time, and
// nothing is left of it. A goroutine that stayed would end the bubble with a deadlock.
func TestDutyFollowsLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &office{changed: make(chan struct{})}
		running, begun := 0, 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- While(ctx, o, func(ctx context.Context) error {
				running++
				begun++
				<-ctx.Done()
				running--
				return nil
			})
		}()
		for range 100 {
			o.set(true)
			synctest.Wait()
			if running != 1 {
				t.Fatalf("leading: %d duties run", running)
			}
			o.set(true) // news that changes nothing
			synctest.Wait()
			o.set(false)
			synctest.Wait()
			if running != 0 {
				t.Fatalf("no longer leading: %d duties run", running)
			}
		}
		if begun != 100 {
			t.Errorf("%d duties for 100 terms", begun)
		}
		o.set(true)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || running != 0 {
			t.Errorf("end: %v, %d run", err, running)
		}
	})
}

func TestAFailedDutyIsTheEnd(t *testing.T) {
	o := &office{leads: true, changed: make(chan struct{})}
	broken := errors.New("broken")
	if err := While(t.Context(), o, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
}
