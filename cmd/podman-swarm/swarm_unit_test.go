package main

import (
	"os"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/node"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUnit(t *testing.T) {
	for user, want := range map[bool]string{
		false: `# Written by podman-swarm.
[Unit]
Description=Podman Swarm node
Documentation=https://github.com/podman-swarm/podman-swarm
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/p agent --data-dir "/a b/100%%" "--node-name=\"x\\$$y"
Restart=on-failure
RestartPreventExitStatus=78
RestartSec=1
KillMode=process
OOMPolicy=continue
Delegate=yes
TasksMax=infinity

[Install]
WantedBy=multi-user.target
`,
		true: `# Written by podman-swarm.
[Unit]
Description=Podman Swarm node
Documentation=https://github.com/podman-swarm/podman-swarm
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/p agent --data-dir "/a b/100%%" "--node-name=\"x\\$$y"
Restart=on-failure
RestartPreventExitStatus=78
RestartSec=1
KillMode=process
OOMPolicy=continue
Delegate=yes
TasksMax=infinity

[Install]
WantedBy=default.target
`,
	} {
		if have := (systemd{user: user}).unit([]string{"/bin/p", "agent", "--data-dir", "/a b/100%", `--node-name="x\$y`}); have != want {
			t.Errorf("user %v: have\n%swant\n%s", user, have, want)
		}
	}
}

func TestShellWords(t *testing.T) {
	for word, want := range map[string]string{"/a/b-c": "/a/b-c", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		if have := shellWord(word); have != want {
			t.Errorf("%s: %s, want %s", word, have, want)
		}
	}
}

func TestUnitNames(t *testing.T) {
	if have := unitName(node.DefaultDataDir()); have != "podman-swarm.service" {
		t.Errorf("of the default directory: %s", have)
	}
	if a, b := unitName("/a"), unitName("/b"); a == b || a == "podman-swarm.service" {
		t.Errorf("two directories share %s, %s", a, b)
	}
}
