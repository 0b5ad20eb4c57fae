package plan

import "time"

// The crash loop's delays: upstream's.
const (
	BackoffFirst = 10 * time.Second
	BackoffMax   = 5 * time.Minute
)

// Backoff is the memory of one crash loop or of one failing pull. The zero value: nothing failed yet.
type Backoff struct {
	Delay time.Duration
	Last  time.Time // when Delay was last raised: the start of the latest try
}

// Next returns the memory after a try at now, that follows a failure at failed.
func (b Backoff) Next(failed, now time.Time) Backoff {
	if b.Delay == 0 || b.expired(failed) {
		return Backoff{Delay: BackoffFirst, Last: now}
	}
	return Backoff{Delay: min(2*b.Delay, BackoffMax), Last: now}
}

// Until returns when the next try after a failure at failed is due; a time before failed when at once.
func (b Backoff) Until(failed time.Time) time.Time {
	if b.Delay == 0 || b.expired(failed) {
		return time.Time{}
	}
	return failed.Add(b.Delay)
}

// expired: it ran so long before it failed that this is a new story.
func (b Backoff) expired(failed time.Time) bool {
	return failed.Sub(b.Last) > 2*BackoffMax
}

// Resumed guesses the memory of a crash loop from the latest attempt that a former agent made, so
// that restarting the agent does not set every crash loop free.
func Resumed(c *Container) Backoff {
	if c == nil || c.Attempt == 0 {
		return Backoff{}
	}
	d := BackoffMax
	if c.Attempt <= 5 {
		d = min(BackoffFirst<<(c.Attempt-1), BackoffMax)
	}
	return Backoff{Delay: d, Last: c.Created}
}
