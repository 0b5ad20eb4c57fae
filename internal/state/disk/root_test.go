package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, raftName))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// writer returns a function that fills new stores with one entry.
func writer(data string) func(*Disk) error {
	return func(d *Disk) error { return d.Log.StoreLog(entry(1, 1, []byte(data))) }
}

func holds(t *testing.T, d *Disk, want string) {
	t.Helper()
	e := entry(0, 0, nil)
	if err := d.Log.GetLog(1, e); err != nil || string(e.Data) != want {
		t.Fatalf("lineage %s holds %q, %v; want %q", d.Current.Lineage, e.Data, err, want)
	}
}

func begun(t *testing.T) (*Root, *Disk) {
	t.Helper()
	r, err := Take(testConfig(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if _, err := r.Open(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("open an empty directory: %v", err)
	}
	d, err := r.Begin(Current{Lineage: "l1", Server: "n1.aa"}, writer("one"))
	if err != nil {
		t.Fatal(err)
	}
	return r, d
}

func reopen(t *testing.T, r *Root, before *Disk) *Disk {
	t.Helper()
	if before != nil {
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d, err := r.Open()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A takeover: the new lineage replaces the old one, or nothing has happened.
func TestBegin(t *testing.T) {
	r, d := begun(t)
	failed := errors.New("no room")
	if _, err := r.Begin(Current{Lineage: "l2", Server: "n1.bb"}, func(*Disk) error { return failed }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if _, err := r.Begin(Current{Lineage: "l1", Server: "n1.bb"}, nil); err == nil {
		t.Fatal("the lineage that is followed was begun anew")
	}
	d = reopen(t, r, d)
	holds(t, d, "one")
	two, err := r.Begin(Current{Lineage: "l2", Server: "n1.bb"}, writer("two"))
	if err != nil {
		t.Fatal(err)
	}
	holds(t, two, "two")
	if got := names(t, r.cfg.Dir); got != "l2" {
		t.Errorf("left are %s", got)
	}
	// Power was lost between "current" and the final name.
	if err := errors.Join(d.Close(), two.Close(), os.Rename(r.path("l2"), r.path(unfinished+"l2"))); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, r, nil)
	holds(t, d, "two")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// A rejoin keeps the former lineage until it is settled, and can go back.
func TestFormer(t *testing.T) {
	for _, retreat := range []bool{false, true} {
		r, one := begun(t)
		two, err := r.Begin(Current{Lineage: "l2", Server: "n1.bb", Former: &Former{Lineage: "l1", Server: "n1.aa", Reach: 7}}, writer("two"))
		if err != nil {
			t.Fatal(err)
		}
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		two = reopen(t, r, two)
		if f := two.Current.Former; f == nil || f.Reach != 7 {
			t.Fatalf("came back as %+v", two.Current)
		}
		former, err := r.Former(two.Current)
		if err != nil {
			t.Fatal(err)
		}
		holds(t, former, "one")
		if err := former.Close(); err != nil {
			t.Fatal(err)
		}
		want, server := "two", "n1.bb"
		if retreat {
			want, server = "one", "n1.aa"
			err = errors.Join(two.Close(), r.Retreat(two.Current))
			two = nil
		} else {
			err = r.Settle(two.Current)
		}
		if err != nil {
			t.Fatal(err)
		}
		d := reopen(t, r, two)
		holds(t, d, want)
		if d.Current.Server != server || d.Current.Former != nil || names(t, r.cfg.Dir) != d.Current.Lineage {
			t.Errorf("retreat %v: %+v, left are %s", retreat, d.Current, names(t, r.cfg.Dir))
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSetAside(t *testing.T) {
	r, d := begun(t)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	aside, err := r.SetAside(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil || aside != r.cfg.Dir+".damaged-20260102T030405.000" {
		t.Fatalf("%s, %v", aside, err)
	}
	if _, err := r.Open(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the directory: %v", err)
	}
	if _, err := Take(r.cfg); !errors.Is(err, ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	old, err := Take(Config{Dir: aside, Log: r.cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	d = reopen(t, old, nil)
	holds(t, d, "one")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
