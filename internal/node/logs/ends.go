package logs

import (
	"log/slog"
	"runtime/debug"
)

// ends is what upstream ends the process with. It does so where it would rather begin anew than go on, says why as
// one of the errors that are debug messages here, and nothing of the place.
func ends(log *slog.Logger, exit func(status int)) func(status int) {
	return func(status int) {
		log.Error("upstream's code ends this process; please report it", "status", status, "stack", string(debug.Stack()))
		exit(status)
	}
}
