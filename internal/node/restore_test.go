package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRestoreRefusals(t *testing.T) {
	c := hollowNode(t, "n1")
	var out strings.Builder
	wantLine(t, Restore(t.Context(), c, filepath.Join(t.TempDir(), "none"), &out), "no such file")
	bad := filepath.Join(t.TempDir(), "bad.tar.gz")
	if err := os.WriteFile(bad, []byte("no backup"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLine(t, Restore(t.Context(), c, bad, &out), "damaged backup")
	wantGone(t, c.DataDir)
}
