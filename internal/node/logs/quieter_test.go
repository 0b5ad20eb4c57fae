package logs

import (
	"bytes"
	"log/slog"
	"testing"
)

func TestWhatIsNoNewsIsNotTold(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(*slog.Logger)
		told bool
	}{
		{"an error", func(l *slog.Logger) { l.Error("the disk is full") }, true},
		{"a retry", func(l *slog.Logger) { l.Error("sync", "logger", upstreamRetry) }, false},
		{"a controller that begins again", func(l *slog.Logger) { l.Error("unable to register metrics") }, false},
		{"one that ends while it begins", func(l *slog.Logger) { l.Error("Unable start event watcher (will not retry!)") }, false},
		{"no metric labels", func(l *slog.Logger) { l.Error(manifest) }, false},
	} {
		var out bytes.Buffer
		c.log(slog.New(retries{slog.NewTextHandler(&out, nil)}))
		if told := out.Len() > 0; told != c.told {
			t.Errorf("%s: told %t, want %t", c.name, told, c.told)
		}
	}
}
