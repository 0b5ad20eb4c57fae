package pki

import (
	"bytes"
	"crypto/tls"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fullDir is a directory with every file that a node has, in the midst of a rotation.
func fullDir(t *testing.T) (string, *Authority) {
	t.Helper()
	dir := t.TempDir()
	a := mustOpen(t, dir, time.Now())
	mustUpdate(t, a, mustRotate(t, a.RotateCA))
	issued(t, a)
	return dir, a
}

// issued makes or mends what the CAs issue, and checks that it can be used.
func issued(t *testing.T, a *Authority) {
	t.Helper()
	for _, pair := range []func() (string, string, error){func() (string, string, error) { return a.Serving("localhost") }, a.FrontProxy} {
		cert, key, err := pair()
		if err == nil {
			_, err = tls.LoadX509KeyPair(cert, key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := mustNode(t, a, "n1").Certificate().Leaf.CheckSignatureFrom(a.ring().issuer.cert); err != nil {
		t.Fatal(err)
	}
}

// fill writes files into a new directory.
func fill(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// damages are all that a test does to a file: a bit of each byte flipped, and every cut. What is
// issued again costs a signature and a sync each time: of that a part is enough.
func damages(data string, step int) []string {
	var out []string
	for i := 0; i < len(data); i += step {
		b := []byte(data)
		b[i] ^= 0x10
		out = append(out, string(b), data[:i])
	}
	return out
}

// No damage goes unnoticed: of an original it is an error that names the file, the rest is mended.
func TestDamageIsNoticed(t *testing.T) {
	dir, a := fullDir(t)
	files := contents(t, dir)
	if len(files) != 16 {
		t.Fatalf("%d files: %v", len(files), slices.Sorted(maps.Keys(files)))
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			original := name == sumsName || slices.Contains(originals(), name)
			step := 1
			if !original {
				step = 29
			}
			dir := fill(t, files)
			path := filepath.Join(dir, name)
			for i, bad := range damages(data, step) {
				if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
					t.Fatal(err)
				}
				b, err := Open(dir)
				switch {
				case original && (err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n")):
					t.Fatalf("damage %d: got %v, want one line with the file", i, err)
				case !original && err != nil:
					t.Fatalf("damage %d: %v", i, err)
				case !original:
					if issued(t, b); !bytes.Equal(a.Bundle(), b.Bundle()) {
						t.Fatalf("damage %d: other keys", i)
					}
				}
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); (err != nil) != (original && name != sumsName) {
				t.Errorf("without the file: %v", err)
			}
		})
	}
}

func TestDamagedJournalIsNoticed(t *testing.T) {
	dir, a := fullDir(t)
	files := contents(t, dir)
	next := mustRotate(t, a.RotateEncryptionKey)
	journal := string(encodeJournal(next))
	dir = fill(t, files)
	path := filepath.Join(dir, journalName)
	for i, bad := range damages(journal, 1) {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("damage %d: got %v, want the file", i, err)
		}
	}
	for name, good := range map[string]string{"": journal, "of an earlier release": string(next)} {
		dir := fill(t, files)
		if err := os.WriteFile(filepath.Join(dir, journalName), []byte(good), 0o600); err != nil {
			t.Fatal(err)
		}
		if b := mustOpen(t, dir, time.Now()); !bytes.Equal(b.Bundle(), next) {
			t.Errorf("journal %s was not finished", name)
		}
	}
}

// A crash between any two writes of an update leaves what the next Open completes, whatever the
// originals are by then.
func TestUpdateCutOff(t *testing.T) {
	_, a := fullDir(t)
	for _, rotate := range []func() ([]byte, error){a.RotateCA, a.RotateCA, a.RotateGossipKey, a.RotateEncryptionKey} {
		before := contents(t, a.dir)
		next := mustRotate(t, rotate)
		mustUpdate(t, a, next)
		after := contents(t, a.dir)
		order, err := keyFiles(a.ring())
		if err != nil {
			t.Fatal(err)
		}
		before[journalName] = string(encodeJournal(next))
		for written := range len(order) + 1 {
			dir := fill(t, before)
			b := mustOpen(t, dir, time.Now())
			got := contents(t, dir)
			for _, f := range order {
				if got[f.name] != after[f.name] {
					t.Fatalf("after %d files: %s is not what it was to be", written, f.name)
				}
			}
			if _, left := got[journalName]; left || !bytes.Equal(b.Bundle(), next) {
				t.Fatalf("after %d files: the update is not finished", written)
			}
			mustOpen(t, dir, time.Now())
			if written == len(order) {
				break
			}
			if f := order[written]; len(f.data) > 0 {
				before[f.name] = string(f.data)
			} else {
				delete(before, f.name)
			}
		}
	}
}

// A crash between any two writes of the first Open leaves what the next one completes, with the keys
// that were made.
func TestFirstOpenCutOff(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, time.Now())
	all := contents(t, dir)
	order := []string{"ca.key", "ca.crt", "front-proxy-ca.key", "front-proxy-ca.crt", "sa.key", "encryption.yaml", sharedName, sumsName, issuerName}
	if diff := cmp.Diff(slices.Sorted(slices.Values(order)), slices.Sorted(maps.Keys(all))); diff != "" {
		t.Fatal(diff)
	}
	files := map[string]string{}
	for _, name := range order {
		dir := fill(t, files)
		mustOpen(t, dir, time.Now())
		got := contents(t, dir)
		for have := range files {
			if got[have] != files[have] {
				t.Errorf("before %s: %s was made anew", name, have)
			}
		}
		if diff := cmp.Diff(got, contents(t, mustOpen(t, dir, time.Now()).dir)); diff != "" || len(got) != len(all) {
			t.Errorf("before %s: %s", name, diff)
		}
		files[name] = all[name]
	}
}

// A directory of an earlier release is taken as it is, once.
func TestSumsAreMadeOnce(t *testing.T) {
	dir, a := fullDir(t)
	want := contents(t, dir)
	unsum(t, dir)
	if b := mustOpen(t, dir, time.Now()); !bytes.Equal(a.Bundle(), b.Bundle()) {
		t.Error("other keys")
	}
	if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
		t.Error(diff)
	}
	installed := filepath.Join(t.TempDir(), "pki")
	if err := InstallBundle(installed, a.Bundle()); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, installed); got[sumsName] != want[sumsName] {
		t.Errorf("an installed directory has the sums\n%s, want\n%s", got[sumsName], want[sumsName])
	}
}

func FuzzSums(f *testing.F) {
	f.Add(encodeSums(map[string][]byte{"ca.crt": []byte("x"), sharedName: []byte("y")}))
	f.Add([]byte("# \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sums, ok := parseSums(data)
		for name, s := range sums {
			if !bytes.Contains(data, []byte(s+"  "+name)) {
				t.Errorf("%q %q made up", s, name)
			}
		}
		if ok && !bytes.HasPrefix(data, sumsHeader(string(data[bytes.IndexByte(data, '\n')+1:]))) {
			t.Error("believed without its checksum")
		}
		_, _ = decodeJournal(data)
	})
}
