package lead

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
)

func TestQuietAfterTheOffice(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug} {
		var out bytes.Buffer
		office, end := context.WithCancel(t.Context())
		l := Quiet(office, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))).With("part", "schedule").WithGroup("pod")
		l.Error("in office", "name", "a")
		end()
		l.Error("after it", "name", "b")
		if got := out.String(); !strings.Contains(got, `level=ERROR msg="in office" part=schedule pod.name=a`) {
			t.Errorf("at %s: %s", level, got)
		}
		if got, want := strings.Contains(out.String(), `level=DEBUG msg="after it" part=schedule pod.name=b`), level == slog.LevelDebug; got != want {
			t.Errorf("at %s: %s", level, out.String())
		}
	}
}
