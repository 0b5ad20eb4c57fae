//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestRefusals: bad input gets one clear line and a non-zero exit.
func TestRefusals(t *testing.T) {
	keepRunning(t)
	inside, _ := machine.DataDir()
	tmp := "/tmp/refusals-" + machine.Name
	agent := machine.Bin("podman-swarm") + " agent"
	fresh := agent + " --node-name other --api-addr 127.0.0.1:7443 --bind-addr 0.0.0.0:8946 --data-dir " + tmp
	setup := `set -e; mkdir -p ` + tmp + `/newer; cd ` + tmp + `; echo 999 >newer/VERSION; echo 'nodeNam: x' >bad.yaml`
	if out, errOut, err := machine.Run(t.Context(), "", "sh", "-c", setup); err != nil {
		t.Fatal(err, out, errOut)
	}
	t.Cleanup(func() { _, _, _ = machine.Run(background(), "", "rm", "-rf", tmp) })
	type refusal struct{ name, command, want, without string }
	cases := []refusal{
		{"unknown flag", agent + " --nosuch", "unknown flag: --nosuch", ""},
		{"unknown config key", agent + " --config " + tmp + "/bad.yaml", "nodeNam", ""},
		{"directory in use", agent + " --data-dir " + inside, "in use by another agent", ""},
		{"newer directory", agent + " --data-dir " + tmp + "/newer", "written by a newer release", ""},
		{"port in use", fresh + "/d1 --api-addr 0.0.0.0:6443", "address already in use", ""},
		{"port for nodes in use", fresh + "/d1 --bind-addr 0.0.0.0:7946", "--bind-addr: listen tcp 0.0.0.0:7946: bind: address already in use", ""},
		{"unreadable socket", fresh + "/d2 --podman-socket /nosuch/podman.sock", "/nosuch/podman.sock", ""},
		{"missing nft", fresh + "/d3", "nft is not installed: install the package nftables", "nft"},
		{"missing podman", fresh + "/d4", "podman is not installed: install the package podman", "podman"},
		{"bad values", agent + " --data-dir /x --node-name Bad_Name", "--node-name", ""},
	}
	if machine.Rootless {
		cases = append(cases, refusal{"missing newuidmap", fresh + "/d5", "newuidmap is not installed: install the package uidmap", "newuidmap"})
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if tc.without != "" {
				hide(t, tc.without)
			}
			_, errOut, err := machine.Run(t.Context(), "", "timeout", "20", "sh", "-c", tc.command)
			if err == nil {
				t.Fatalf("exit status 0: %s", errOut)
			}
			if lines := complaints(errOut); len(lines) != 1 || !strings.Contains(lines[0], tc.want) {
				t.Errorf("%d lines, want one with %q:\n%s", len(lines), tc.want, errOut)
			}
		})
	}
}

// complaints are the lines in which a program says why it ended.
func complaints(stderr string) []string {
	var out []string
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "podman-swarm: ") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// hide makes a program of the machine one that is not installed, until the test ends.
func hide(t *testing.T, program string) {
	t.Helper()
	out, err := machine.Lab(t.Context(), "root", machine.Name, "sh", "-c", "PATH=$PATH:/usr/sbin command -v "+program)
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(out)
	if _, err := machine.Lab(t.Context(), "root", machine.Name, "mount", "--bind", "/etc/hostname", path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := machine.Lab(background(), "root", machine.Name, "umount", path); err != nil {
			t.Error(err)
		}
	})
}
