package hlc

import (
	"fmt"
	"sync"
	"time"
)

// Stamp is a hybrid logical timestamp: 48 bits of Unix milliseconds, 16 bits of counter.
// Stamps of one clock strictly increase; a clock that has seen another's stamp is ahead of it.
// Source: Kulkarni et al., "Logical Physical Clocks", 2014.
type Stamp uint64

const counterBits = 16

// At returns the first stamp of the millisecond that holds t; times before 1970 give 0.
func At(t time.Time) Stamp {
	return Stamp(max(t.UnixMilli(), 0)) << counterBits
}

// Time is the stamp's wall time, to the millisecond.
func (s Stamp) Time() time.Time {
	return time.UnixMilli(int64(s >> counterBits))
}

// Counter tells apart stamps of one millisecond.
func (s Stamp) Counter() uint16 {
	return uint16(s)
}

// Back returns the stamp that is older by a duration, to the millisecond, at least 0.
func (s Stamp) Back(d time.Duration) Stamp {
	return s - min(s, Stamp(d/time.Millisecond)<<counterBits)
}

// String prints the stamp as RFC 3339 time and counter.
func (s Stamp) String() string {
	return fmt.Sprintf("%s#%d", s.Time().UTC().Format("2006-01-02T15:04:05.000Z07:00"), s.Counter())
}

// Clock makes stamps. It is safe for concurrent use; the zero value is not usable, see New.
type Clock struct {
	wall func() time.Time

	mu   sync.Mutex
	last Stamp
}

// New returns a clock over the given wall clock, usually time.Now.
func New(wall func() time.Time) *Clock {
	return &Clock{wall: wall}
}

// Now returns a stamp newer than every stamp this clock has made or observed.
func (c *Clock) Now() Stamp {
	wall := At(c.wall())
	c.mu.Lock()
	defer c.mu.Unlock()
	// A full counter spills into the milliseconds: order is kept, the time runs ahead a little.
	c.last = max(wall, c.last+1)
	return c.last
}

// Observe moves the clock past a stamp that another clock made.
func (c *Clock) Observe(s Stamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, s)
}
