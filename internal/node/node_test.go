package node

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func valid(t *testing.T) Config {
	t.Helper()
	return Config{DataDir: t.TempDir(), NodeName: "n1", AdvertiseAddr: "127.0.0.1"}.WithDefaults()
}

func TestDefaultsAreValid(t *testing.T) {
	if err := valid(t).Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsEverything(t *testing.T) {
	c := valid(t)
	c.DataDir, c.NodeName, c.APIAddr, c.PodCIDR, c.LogLevel, c.AuditPolicyFile = "rel", "Bad_Name", "x", "10.0.0.1/24", "loud", "p"
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, flag := range []string{"data-dir", "node-name", "api-addr", "pod-cidr", "log-level", "audit-policy-file"} {
		if !strings.Contains(err.Error(), "--"+flag) {
			t.Errorf("error does not name --%s: %v", flag, err)
		}
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 6 {
		t.Errorf("%d lines for 6 mistakes:\n%v", lines, err)
	}
}

func TestLoadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nodeName: a\napiAddr: 127.0.0.1:7443\n")
	c, err := LoadFile(path)
	if err != nil || c.NodeName != "a" {
		t.Fatalf("LoadFile = %+v, %v", c, err)
	}
	if got := c.Override(Config{NodeName: "b"}); got.NodeName != "b" || got.APIAddr != "127.0.0.1:7443" {
		t.Errorf("Override = %+v", got)
	}
	write("nodeNam: a\n")
	if _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), "nodeNam") || strings.Contains(err.Error(), "\n") {
		t.Errorf("unknown key: %v", err)
	}
}

func TestDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("second open: %v", err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{"999\n": "newer release", "x": "damaged"} {
		if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openDataDir(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("VERSION %q: %v", content, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "VERSION")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir); err == nil || !strings.Contains(err.Error(), "VERSION is missing") {
		t.Errorf("VERSION lost beside state: %v", err)
	}
}

// The lock of a killed agent outlives it for a moment; that of a living one is respected at once.
func TestDataDirOfKilledAgent(t *testing.T) {
	dir := t.TempDir()
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if holderIsDying(d.lock.Name()) {
		t.Error("we are dying")
	}
	if err := os.WriteFile(d.lock.Name(), []byte("4194304\n"), 0o600); err != nil { // no pid is that high
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		second, err := openDataDir(dir)
		if err == nil {
			err = second.close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Errorf("opened under the lock: %v", err)
	case <-time.After(3 * dyingPoll):
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestResetSparesForeignFiles(t *testing.T) {
	home := t.TempDir()
	letter := filepath.Join(home, "letter")
	if err := os.WriteFile(letter, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := refuseForeign(home); err == nil || !strings.Contains(err.Error(), "nothing was removed") {
		t.Errorf("somebody's directory: %v", err)
	}
	d, err := openDataDir(filepath.Join(home, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := refuseForeign(d.path); err != nil {
		t.Error(err)
	}
	kept := filepath.Join(d.path, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if err := errors.Join(refuseForeign(d.path), removeData(d.path, log)); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(d.path); err != nil || len(entries) != 1 || entries[0].Name() != "kept" {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := errors.Join(os.Remove(kept), removeData(d.path, log), removeData(d.path, log)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty data directory: %v", err)
	}
	if _, err := os.Stat(letter); err != nil {
		t.Error(err)
	}
}

func TestLoopbackListener(t *testing.T) {
	l := newLoopbackListener("n1")
	if _, err := l.DialNode(t.Context(), "n2"); err == nil {
		t.Error("dialled a node that is not there")
	}
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			c.Close()
		}
		done <- err
	}()
	c, err := l.DialNode(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "ping" {
		t.Errorf("echo = %q, %v", b, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := l.DialNode(t.Context(), "n1"); err == nil {
		t.Error("dialled a closed listener")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("accepted from a closed listener")
	}
}

func TestDropText(t *testing.T) {
	if err := dropText(); err != nil {
		t.Error(err)
	}
	for line, want := range map[string]bool{
		"00400000-01000000 r-xp 00000000 fe:00 1 /bin/x": true,
		"01000000-02000000 rw-p 00000000 fe:00 1 /bin/x": false,
		"00400000-01000000 r-xp 00000000 fe:00 1 /bin/y": false,
		"nonsense": false,
	} {
		if _, _, ok := readOnlyRange(line, "/bin/x"); ok != want {
			t.Errorf("readOnlyRange(%q) = %v", line, ok)
		}
	}
}
