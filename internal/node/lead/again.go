package lead

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

const (
	// firstPause is how long Again waits after an error; it doubles up to mostPause. A run that lasted
	// for longer than that was sound, and the next error is a first one.
	firstPause = time.Second
	mostPause  = 30 * time.Second
)

// Again runs a part of a duty until its office ends, and begins it anew when it ends before: the API may
// be out of order for a moment, as while leaders change, and a node is more than its duties. An
// error after the office has ended is of no interest. Only fatal ends it: no new run can put that right.
func Again(office context.Context, log *slog.Logger, part string, fatal error, run func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		begun := time.Now()
		err := run(office)
		if fatal != nil && errors.Is(err, fatal) {
			return err
		}
		if office.Err() != nil {
			return nil //nolint:nilerr // it ends because the office did, whatever it says
		}
		if time.Since(begun) > mostPause {
			pause = firstPause
		}
		log.Warn("a part of what this node does as the leader has ended, and begins anew", "part", part, "err", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-office.Done():
			return nil
		}
	}
}
