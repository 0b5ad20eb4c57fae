package logs

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

// TestNothingEndsSilently: whoever reads the log of a node that has ended learns where.
func TestNothingEndsSilently(t *testing.T) {
	was := klog.OsExit
	defer func() { klog.OsExit = was }()
	var out bytes.Buffer
	status := 0
	klog.OsExit = ends(slog.New(slog.NewTextHandler(&out, nil)), func(s int) { status = s })
	klog.FlushAndExit(klog.ExitFlushTimeout, 3)
	if status != 3 {
		t.Errorf("status %d, want 3", status)
	}
	for _, want := range []string{"level=ERROR", "status=3", "TestNothingEndsSilently"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s does not say %q", out.String(), want)
		}
	}
}
