package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func source(at time.Time) Source {
	return Source{
		Info: Info{Cluster: "c1", Lineage: "l1", Node: "n1", Release: "v1", Created: at},
		Snapshot: func(w io.Writer) (uint64, error) {
			_, err := io.WriteString(w, strings.Repeat("the state ", 1000))
			return 42, err
		},
		Keys: func() ([]byte, error) { return []byte(`{"keys":1}`), nil },
		Objects: func(_ context.Context, add func(string, []byte) error) error {
			return errors.Join(add("default/ConfigMap/a.yaml", []byte("a: 1\n")), add("_cluster/Node/n1.yaml", []byte("b: 2\n")))
		},
	}
}

func TestCreateVerifyOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	path, err := Create(t.Context(), dir, source(at))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Info.Revision != 42 || c.Info.Objects != 2 || string(c.Keys) != `{"keys":1}` || len(c.Snapshot) != 10000 || !c.Info.Created.Equal(at) {
		t.Errorf("contents = %+v, keys %q, %d bytes of state", c.Info, c.Keys, len(c.Snapshot))
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: the keys are in it", st.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestAFailedBackupLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := source(time.Now())
	s.Keys = func() ([]byte, error) { return nil, errors.New("no keys today") }
	if _, err := Create(t.Context(), dir, s); err == nil || !strings.Contains(err.Error(), "no keys today") {
		t.Errorf("err = %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestEveryDamageIsNoticed flips bytes and cuts the file short at many places.
func TestEveryDamageIsNoticed(t *testing.T) {
	path, err := Create(t.Context(), t.TempDir(), source(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good, err := Read(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		c, err := Read(bytes.NewReader(bad))
		// Some bits mean nothing (in gzip's header, or which of equal bytes to repeat): then all is as it was.
		if err == nil && !reflect.DeepEqual(c, good) {
			t.Errorf("byte %d flipped: not noticed", i)
		}
		if _, err := Read(bytes.NewReader(whole[:i])); err == nil {
			t.Errorf("cut short to %d bytes: not noticed", i)
		}
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	if _, err := decodeInfo(fmt.Appendf(nil, `{"format":%d,"sums":{}}`, Format+1)); err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("err = %v", err)
	}
}

func TestRetention(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var kept []Kept
		for i, minutes := range rapid.SliceOfN(rapid.IntRange(0, 30*24*60), 1, 200).Draw(t, "minutes") {
			at := start.Add(time.Duration(minutes)*time.Minute + time.Duration(i)*time.Millisecond)
			kept = append(kept, Kept{Name: fileName(at), Created: at})
		}
		r := Retention{Hours: rapid.IntRange(1, 24).Draw(t, "hours"), Days: rapid.IntRange(1, 7).Draw(t, "days")}
		surplus := r.Surplus(kept, start.AddDate(1, 0, 0))
		gone := map[string]bool{}
		for _, k := range surplus {
			gone[k.Name] = true
		}
		var newest Kept
		hours, days := map[time.Time]bool{}, map[time.Time]bool{}
		left := 0
		for _, k := range kept {
			if k.Created.After(newest.Created) {
				newest = k
			}
			hours[k.Created.Truncate(time.Hour)] = true
			days[k.Created.Truncate(24*time.Hour)] = true
			if !gone[k.Name] {
				left++
			}
		}
		if gone[newest.Name] {
			t.Fatal("the newest backup goes")
		}
		if left > r.Hours+r.Days || left < min(r.Hours, len(hours)) || left < min(r.Days, len(days)) {
			t.Fatalf("%d of %d stay, with %d hours and %d days", left, len(kept), r.Hours, r.Days)
		}
	})
}

// Whatever a clock that was ahead has made, what is dated right stays as if that were not there.
func TestRetentionAfterAClockThatWasAhead(t *testing.T) {
	now := time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)
	var sound, ahead []Kept
	for i := range 6 {
		at := now.Add(-time.Duration(i) * time.Hour)
		sound = append(sound, Kept{Name: fileName(at), Created: at})
		at = now.Add(time.Duration(i+1) * 1000 * time.Hour)
		ahead = append(ahead, Kept{Name: fileName(at), Created: at})
	}
	slices.Reverse(ahead)
	r := Retention{Hours: 3, Days: 1}
	want := append(r.Surplus(sound, now), r.Surplus(ahead, now)...)
	if got := r.Surplus(slices.Concat(sound, ahead), now); len(want) != 6 || !slices.Equal(got, want) {
		t.Errorf("goes %v\nwant %v", got, want)
	}
	if got := Ahead(slices.Concat(ahead, sound), now); !slices.Equal(got, ahead) {
		t.Errorf("ahead: %v", got)
	}
}

func TestPruneTouchesOnlyBackups(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 5 {
		if _, err := Create(t.Context(), dir, source(start.Add(time.Duration(i)*time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Prune(dir, Retention{Hours: 1, Days: 1}, start.Add(time.Hour)); n != 4 || err != nil {
		t.Errorf("Prune = %d, %v", n, err)
	}
	kept, err := List(dir)
	if err != nil || len(kept) != 1 || !kept[0].Created.Equal(start.Add(4*time.Minute)) {
		t.Errorf("kept %v, %v", kept, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

func TestCleanRemovesOnlyWhatIsUnfinished(t *testing.T) {
	dir := t.TempDir()
	if err := Clean(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	if _, err := Create(t.Context(), dir, source(time.Now())); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"letter.txt", ".new-123", ".newer"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 || left[0].Name() != ".newer" || left[1].Name() != "letter.txt" {
		t.Errorf("left %v, %v", left, err)
	}
}

func FuzzRead(f *testing.F) {
	var whole bytes.Buffer
	if err := write(f.Context(), &whole, source(time.Unix(0, 0))); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Read(bytes.NewReader(data))
		if err == nil && len(c.Info.Sums) < 2 {
			t.Error("accepted without parts")
		}
	})
}
