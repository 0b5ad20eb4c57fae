package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Undo takes away what was made since Open, and never what was there before.
func TestUndo(t *testing.T) {
	for name, tc := range map[string]struct{ before, made, want []string }{
		"no directory":     {nil, []string{"pki", "state", ".pki.new", ".member.json.1"}, nil},
		"an empty one":     {[]string{"."}, []string{"pki"}, []string{}},
		"with a node's":    {[]string{"VERSION", "lock", "pki", "run"}, []string{"state", unfinished}, []string{"VERSION", "lock", "pki", "run"}},
		"with a letter":    {[]string{"letter", "backups"}, []string{"state", "note"}, []string{"backups", "letter", "note"}},
		"somebody's notes": {nil, []string{"state", "note"}, []string{"note"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			fill(t, dir, tc.before)
			d, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, dir, tc.made)
			if err := d.Undo(); err != nil {
				t.Fatal(err)
			}
			have, err := names(dir)
			if _, gone := os.Stat(dir); err != nil || !slices.Equal(have, tc.want) || (tc.want == nil) != errors.Is(gone, os.ErrNotExist) {
				t.Errorf("left %v, want %v (%v, %v)", have, tc.want, err, gone)
			}
		})
	}
}

func fill(t *testing.T, dir string, names []string) {
	t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if name == "." || name == "run" {
			if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content := map[string]string{"VERSION": "1\n", "lock": "1\n"}[name]
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
