package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/podman-swarm/podman-swarm/internal/node"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// machine is a computer on which the commands run: a directory, a fake systemd, a fake agent.
type machine struct {
	dir, units string
	environ    []string
	systemd    bool
	user       bool
	did        []string // by node, systemctl and the agent's API
	fail       error    // of node's functions
	members    []swarm.Member
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	return &machine{dir: filepath.Join(t.TempDir(), "data"), units: filepath.Join(t.TempDir(), "units"), systemd: true, members: []swarm.Member{{Name: "ant"}, {Name: "bee"}}}
}

func (m *machine) do(format string, args ...any) error {
	m.did = append(m.did, fmt.Sprintf(format, args...))
	return nil
}

// The agent's API.
func (m *machine) Status(context.Context) (swarm.Status, error) {
	return swarm.Status{Node: "ant", Health: "fine", Members: m.members}, nil
}
func (m *machine) Members(context.Context) ([]swarm.Member, error) { return m.members, nil }
func (m *machine) RotateCA(_ context.Context, say swarm.Progress) error {
	say("every node trusts the new authority")
	return m.do("rotate-ca")
}

func (m *machine) RotateGossipKey(context.Context, swarm.Progress) error {
	return m.do("rotate-gossip-key")
}
func (m *machine) List(context.Context) ([]swarm.Token, error) { return nil, nil }
func (m *machine) Revoke(_ context.Context, id string) error   { return m.do("revoke %s", id) }
func (m *machine) Create(_ context.Context, r swarm.TokenRequest) (swarm.NewToken, error) {
	return swarm.NewToken{JoinCommand: "podman-swarm join x"}, m.do("token %s %d", r.TTL, r.Uses)
}

type nodes struct{ *machine }

func (nodes) Remove(context.Context, string) error  { return nil }
func (nodes) Fence(context.Context, string) error   { return nil }
func (nodes) Unfence(context.Context, string) error { return nil }
func (n nodes) Leave(_ context.Context, r swarm.LeaveRequest, _ swarm.Progress) error {
	return n.do("leave %v", r.Force)
}

// boot starts the agent's API and leaves its kubeconfig in the data directory.
func (m *machine) boot(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(swarm.Handler(swarm.Backend{Reader: m, Keys: m, Tokens: m, Nodes: nodes{m}}))
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: s.URL, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: "t"}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, filepath.Join(m.dir, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs one command line there.
func (m *machine) run(t *testing.T, line string) (out, said string, err error) {
	t.Helper()
	streams, _, o, e := genericiooptions.NewTestIOStreams()
	root := &cobra.Command{Use: "podman-swarm", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(agent())
	addSwarm(root, swarmHost{
		initNode: func(_ context.Context, cfg node.Config, w io.Writer) error {
			_, _ = fmt.Fprintln(w, "podman-swarm join x")
			return orElse(m.do("init %s %s", cfg.NodeName, cfg.LogLevel), m.fail)
		},
		joinNode: func(_ context.Context, cfg node.Config, addr, token string, _ io.Writer) error {
			return orElse(m.do("join %s at %s with %s", cfg.NodeName, addr, token), m.fail)
		},
		resetNode: func(ctx context.Context, _ node.Config, stay func(context.Context) error) error {
			if m.fail != nil { // an agent runs
				return m.fail
			}
			return errors.Join(stay(ctx), m.do("reset"))
		},
		environ: m.environ, exe: "/usr/bin/podman-swarm", streams: streams, now: time.Now, upTime: 5 * time.Second,
		systemd: systemd{present: m.systemd, user: m.user, dir: m.units, run: func(_ context.Context, args ...string) error {
			if slices.Contains(args, "restart") {
				m.boot(t)
			}
			return m.do("systemctl %s", strings.Join(args, " "))
		}},
	})
	root.SetArgs(strings.Fields(strings.ReplaceAll(line, "DIR", m.dir)))
	err = root.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

func orElse(_, err error) error { return err }

func (m *machine) expect(t *testing.T, want string) {
	t.Helper()
	unit := strings.NewReplacer("UNIT", unitName(m.dir))
	if have := strings.Join(m.did, "\n"); have != unit.Replace(want) {
		t.Errorf("did\n%s\nwant\n%s", have, unit.Replace(want))
	}
}

func TestInitStartsAUnit(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"PODMAN_SWARM_LOG_LEVEL=debug"}
	out, said, err := m.run(t, "init --data-dir DIR --node-name ant")
	if err != nil || out != "podman-swarm join x\n" {
		t.Fatalf("printed %q (%v)", out, err)
	}
	m.expect(t, "init ant debug\nsystemctl daemon-reload\nsystemctl enable UNIT\nsystemctl restart UNIT")
	if want := "Started " + unitName(m.dir) + ", now and at every boot\nIt ends when you log out: to keep it running, run: loginctl enable-linger\nNode ant is up: fine\n"; said != want {
		t.Errorf("said\n%s\nwant\n%s", said, want)
	}
	unit, err := os.ReadFile(filepath.Join(m.units, unitName(m.dir)))
	if want := "ExecStart=/usr/bin/podman-swarm agent --data-dir " + m.dir + " --log-level=debug --node-name=ant\n"; err != nil || !strings.Contains(string(unit), want) {
		t.Errorf("unit is %s (%v), want %s", unit, err, want)
	}
}

// The agent of a unit runs in another directory than the command that made it.
func TestUnitFindsItsFiles(t *testing.T) {
	for _, tc := range []struct{ name, line, file, want string }{
		{"none", "", "", ""},
		{
			"relative", "--tls-cert c --tls-key ./k --tls-ca ../ca --encryption-key e --audit-policy-file a/p --audit-log-path l --podman-socket s", "",
			"--audit-log-path=HERE/l --audit-policy-file=HERE/a/p --encryption-key=HERE/e --podman-socket=HERE/s --tls-ca=ABOVE/ca --tls-cert=HERE/c --tls-key=HERE/k",
		},
		{"absolute, none, a URL", "--tls-ca /ca --audit-log-path - --podman-socket unix:///s", "", "--audit-log-path=- --podman-socket=unix:///s --tls-ca=/ca"},
		{"of the file", "--config c.yaml --tls-ca /ca", "tlsCA: rel\ntlsCert: c\ntlsKey: /k\n", "--config=HERE/c.yaml --tls-ca=/ca --tls-cert=HERE/c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			here := t.TempDir()
			t.Chdir(here)
			write(t, "c.yaml", tc.file)
			m.dir = filepath.Join(here, "data")
			if _, _, err := m.run(t, "init --node-name ant --data-dir data "+tc.line); err != nil {
				t.Fatal(err)
			}
			unit, err := os.ReadFile(filepath.Join(m.units, unitName(m.dir)))
			want := strings.NewReplacer("HERE", here, "ABOVE", filepath.Dir(here)).Replace(tc.want)
			_, command, _ := strings.Cut(string(unit), "ExecStart=/usr/bin/podman-swarm agent --data-dir "+m.dir)
			command, _, _ = strings.Cut(command, "\n")
			if have := strings.TrimSpace(strings.Replace(command, " --node-name=ant", "", 1)); err != nil || have != want {
				t.Errorf("have %s\nwant %s (%v)", have, want, err)
			}
		})
	}
}

func TestJoinWithoutSystemd(t *testing.T) {
	m := newMachine(t)
	m.systemd = false
	m.environ = []string{"PODMAN_SWARM_JOIN_TOKEN=secret", "PODMAN_SWARM_JOIN=10.0.0.9"} // the agent's: not repeated on its command line
	out, said, err := m.run(t, "join 10.0.0.1 --token T --data-dir DIR --node-name bee")
	if want := "Run the node with:\n\n  /usr/bin/podman-swarm agent --data-dir " + m.dir + " --node-name=bee\n\n"; err != nil || out != "" || said != want {
		t.Errorf("printed %q, said %q (%v)", out, said, err)
	}
	m.expect(t, "join bee at 10.0.0.1 with T")
}

func TestJoinThatFailsStartsNothing(t *testing.T) {
	m := newMachine(t)
	m.fail = fmt.Errorf("the token has expired")
	_, said, err := m.run(t, "join 10.0.0.1 --token T --data-dir DIR --node-name bee")
	if err == nil || err.Error() != "the token has expired" || said != "" {
		t.Errorf("said %q (%v)", said, err)
	}
	if _, err := os.Stat(m.units); err == nil {
		t.Error("a unit was made")
	}
}

func TestTokenFromEnvironment(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"PODMAN_SWARM_TOKEN=T"}
	if _, _, err := m.run(t, "join a --no-service --node-name bee --data-dir DIR"); err != nil {
		t.Fatal(err)
	}
	m.expect(t, "join bee at a with T")
}

func TestLocalCommands(t *testing.T) {
	for _, tc := range []struct{ line, did, out, said string }{
		{"status --data-dir DIR", "", "Health:       fine\n", ""},
		{"status -o json --data-dir DIR", "", "\"health\": \"fine\"", ""},
		{"token create --ttl 30m --uses 1 --data-dir DIR", "token 30m0s 1", "\n  podman-swarm join x\n", ""},
		{"token list --data-dir DIR", "", "", "No join tokens found.\n"},
		{"token revoke t1 --data-dir DIR", "revoke t1", "token t1 revoked\n", ""},
		{"rotate-ca --data-dir DIR", "rotate-ca", "rotate-ca: done\n", "  every node trusts the new authority\n"},
		{"rotate-gossip-key --data-dir DIR", "rotate-gossip-key", "rotate-gossip-key: done\n", ""},
		{"leave --yes --force --data-dir DIR", "leave true", "ant has left the swarm. To remove what is left of it here: podman-swarm reset --yes --data-dir ", ""},
	} {
		t.Run(tc.line, func(t *testing.T) {
			m := newMachine(t)
			m.boot(t)
			out, said, err := m.run(t, tc.line)
			if err != nil || !strings.Contains(out, tc.out) || !strings.HasSuffix(said, tc.said) {
				t.Errorf("printed %s, said %s (%v)", out, said, err)
			}
			m.expect(t, tc.did)
		})
	}
}

func TestLeaveTakesTheUnitAway(t *testing.T) {
	m := newMachine(t)
	m.user = true
	if _, _, err := m.run(t, "init --data-dir DIR --node-name ant"); err != nil {
		t.Fatal(err)
	}
	m.did = nil
	if _, _, err := m.run(t, "leave --yes --data-dir DIR"); err != nil {
		t.Fatal(err)
	}
	m.expect(t, "leave false\nsystemctl --user disable --now UNIT\nsystemctl --user daemon-reload")
	if left, err := os.ReadDir(m.units); err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
}

// An agent that starts in what is empty begins a swarm of its own.
func TestResetTakesTheUnitAway(t *testing.T) {
	const gone = "systemctl disable --now UNIT\nsystemctl daemon-reload\n"
	for _, tc := range []struct {
		name, did  string
		unit, runs bool
	}{
		{"with a unit", gone + "reset", true, false},
		{"without one", "reset", false, false},
		{"while the agent runs", "", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			if tc.unit {
				if _, _, err := m.run(t, "init --data-dir DIR --node-name ant"); err != nil {
					t.Fatal(err)
				}
			}
			if m.did = nil; tc.runs {
				m.fail = errors.New("in use by another agent")
			}
			if _, _, err := m.run(t, "reset --yes --data-dir DIR"); (err != nil) != tc.runs {
				t.Error(err)
			}
			m.expect(t, tc.did)
			if left, _ := os.ReadDir(m.units); (len(left) > 0) != tc.runs {
				t.Errorf("left %v", left)
			}
		})
	}
}

// TestRefusals: one clear line each, and nothing done.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ line, want string }{
		{"join", "join needs the address of one node of the swarm, for example: podman-swarm join 10.0.0.1:7946 --token T"},
		{"join 10.0.0.1", "join needs --token T: run `podman-swarm token create` on a node of the swarm"},
		{"init --node-name Not_A_Name --data-dir DIR", "--node-name \"Not_A_Name\": a lowercase RFC 1123 subdomain"},
		{"status --data-dir DIR/none", "no node has run in DIR/none: begin a swarm with `podman-swarm init`, enter one with `podman-swarm join`, or name the --data-dir"},
		{"status --data-dir relative", "--data-dir \"relative\": must be an absolute path"},
		{"status -o xml --data-dir DIR", "-o xml: the formats are json, yaml and wide"},
		{"leave --data-dir DIR", "ant will leave the swarm: its pods are replaced elsewhere, its Node object is deleted, and its agent ends. Say --yes to go on"},
	} {
		t.Run(tc.line, func(t *testing.T) {
			m := newMachine(t)
			m.boot(t)
			_, _, err := m.run(t, tc.line)
			if want := strings.ReplaceAll(tc.want, "DIR", m.dir); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("have %v\nwant %s", err, want)
			}
			m.expect(t, "")
		})
	}
}

func TestLastNodeIsToldWhatEnds(t *testing.T) {
	m := newMachine(t)
	m.members = m.members[:1]
	m.boot(t)
	if _, _, err := m.run(t, "leave --force --data-dir DIR"); err == nil || !strings.Contains(err.Error(), "nobody has its state any more") {
		t.Errorf("have %v", err)
	}
}

func TestAgentThatIsDown(t *testing.T) {
	m := newMachine(t)
	m.boot(t).Close()
	_, _, err := m.run(t, "status --data-dir DIR")
	if err == nil || !strings.HasPrefix(err.Error(), "the agent of "+m.dir+" does not answer (cannot reach https://127.0.0.1:") || !strings.HasSuffix(err.Error(), "start it, or look at its log") {
		t.Errorf("have %v", err)
	}
}

func TestUnitThatDoesNotComeUp(t *testing.T) {
	m := newMachine(t)
	h := swarmHost{upTime: 50 * time.Millisecond, systemd: systemd{user: true}}
	err := h.waitUntilUp(t.Context(), m.dir, "x.service")
	if err == nil || !strings.HasPrefix(err.Error(), "the agent does not answer (no node has run in ") || !strings.HasSuffix(err.Error(), "see what it says with: journalctl --user -u x.service") {
		t.Errorf("have %v", err)
	}
}
