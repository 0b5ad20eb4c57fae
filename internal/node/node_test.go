package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
