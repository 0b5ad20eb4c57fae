package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/wire"
)

// hollowNode is the configuration of a node that needs nothing of this machine but ports.
func hollowNode(t *testing.T, name string) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	}
	c := Config{
		DataDir: filepath.Join(t.TempDir(), "data"), NodeName: name, AdvertiseAddr: "127.0.0.1", Runtime: runtimeHollow, LogLevel: "error",
		BindAddr: nodetest.Address(t), APIAddr: nodetest.Address(t),
	}.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantLine(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(strings.TrimSpace(err.Error()), "\n") {
		t.Errorf("error %v\nwant one line with %q", err, want)
	}
}

func wantGone(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); !os.IsNotExist(err) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestInit(t *testing.T) {
	c := hollowNode(t, "n1")
	key := bytes.Repeat([]byte{5}, 32)
	c.EncryptionKey = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(c.EncryptionKey, []byte(base64.StdEncoding.EncodeToString(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Init(t.Context(), c, &out); err != nil {
		t.Fatal(err)
	}
	keys, err := pki.Open(filepath.Join(c.DataDir, "pki"))
	if err != nil || !bytes.Equal(keys.GossipKeys()[0], key) {
		t.Errorf("gossip begins with %x, %v", keys.GossipKeys(), err)
	}
	if want := "podman-swarm join " + c.wireAddr() + " --token pswt1."; !strings.Contains(out.String(), want) {
		t.Errorf("said %q, want %q", out.String(), want)
	}
	wantLine(t, Init(t.Context(), c, &out), "is the data directory of node n1 already: start its agent, or run podman-swarm reset --yes first")
	c.EncryptionKey = ""
	wantLine(t, Join(t.Context(), c, "127.0.0.1:1", "t", &out), "is the data directory of node n1 already")
	c.NodeName = "n2"
	wantLine(t, Init(t.Context(), c, &out), `--node-name "n2": `)
}

func TestInitRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"a key that is none":          {func(c *Config) { c.EncryptionKey = "/dev/null" }, "--encryption-key: /dev/null does not hold 32 bytes in base64"},
		"no certificate":              {func(c *Config) { c.TLSCert, c.TLSKey = "/dev/null", "/dev/null" }, "--tls-cert, --tls-key: "},
		"no authority":                {func(c *Config) { c.TLSCA = "/dev/null" }, "--tls-ca: /dev/null holds no certificate in PEM"},
		"a swarm to join":             {func(c *Config) { c.Join = "10.0.0.1" }, "--join 10.0.0.1: init begins a swarm of its own: run podman-swarm join 10.0.0.1 --token T to enter that one"},
		"an address of somebody else": {func(c *Config) { c.BindAddr = "192.0.2.1:7946" }, "--bind-addr: "},
	} {
		t.Run(name, func(t *testing.T) {
			c := hollowNode(t, "n1")
			tt.change(&c)
			wantLine(t, Init(t.Context(), c, &strings.Builder{}), tt.want)
			wantGone(t, c.DataDir)
		})
	}
}

// Nothing takes the gossip's port but gossip, and only once everything else is made.
func TestInitWantsBothPorts(t *testing.T) {
	c := hollowNode(t, "n1")
	u, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", c.BindAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	wantLine(t, Init(t.Context(), c, &strings.Builder{}), "--bind-addr: listen udp "+c.BindAddr)
	wantGone(t, c.DataDir)
}

// refuser takes no line, and may see to it that nobody waits for one.
type refuser struct{ cancel context.CancelFunc }

func (r refuser) Write([]byte) (int, error) {
	r.cancel()
	return 0, errors.New("nobody listens")
}

// Whatever ends init, at its last step too, nothing is left but what was there before.
func TestInitThatFailsLeavesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		interrupted bool
		want        string
	}{
		"an error":    {false, "nobody listens"},
		"interrupted": {true, "init was interrupted: nothing is left of it; to go on, run it again"},
	} {
		t.Run(name, func(t *testing.T) {
			c := hollowNode(t, "n1")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end := func() {}
			if tt.interrupted {
				end = cancel
			}
			wantLine(t, Init(ctx, c, refuser{end}), tt.want)
			wantGone(t, c.DataDir)

			if err := os.MkdirAll(filepath.Join(c.DataDir, "backups"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(c.DataDir, "letter"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			wantLine(t, Init(ctx, c, refuser{end}), map[bool]string{false: tt.want, true: "interrupted"}[tt.interrupted])
			wantLeft(t, c.DataDir, "backups letter")
		})
	}
}

func wantLeft(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if strings.Join(have, " ") != want || err != nil {
		t.Errorf("left: %v, want %s (%v)", have, want, err)
	}
}

// guests is where a node of a swarm would be. It hangs up on newcomers.
func guests(t *testing.T, keys *pki.Authority) string {
	t.Helper()
	cert, err := keys.Node("n1", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.Listen(t.Context(), wire.Config{Addr: nodetest.Address(t), Trust: cert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	w.Guests(peers.JoinProto, func(context.Context, *wire.Conn) {})
	return w.Addr().String()
}

// The key of a try is kept for as long as somebody may know it.
func TestJoinThatFails(t *testing.T) {
	keys, err := pki.Open(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	token, living, dead := pki.NewToken(keys.CAHash()).String(), guests(t, keys), nodetest.Address(t)
	join := func(c Config, addr, token string) {
		t.Helper()
		if err := Join(t.Context(), c, addr, token, &strings.Builder{}); err == nil {
			t.Error("it joined")
		}
	}
	c := hollowNode(t, "n2")
	join(c, dead, token)
	wantGone(t, c.DataDir)
	join(c, living, token)
	key, err := os.ReadFile(filepath.Join(c.DataDir, datadir.JoiningFile))
	if err != nil {
		t.Fatalf("the key is gone that a node may know: %v", err)
	}
	for addr, token := range map[string]string{dead: token, living: "pswt1.mistyped"} { // tell nothing of the first try
		join(c, addr, token)
		if again, err := os.ReadFile(filepath.Join(c.DataDir, datadir.JoiningFile)); err != nil || !bytes.Equal(key, again) {
			t.Errorf("after a try at %s with %s the key is another: %v", addr, token, err)
		}
	}
}

func TestJoinRefusals(t *testing.T) {
	var out strings.Builder
	c := hollowNode(t, "n2")
	wantLine(t, Join(t.Context(), c, "127.0.0.1:1", "", &out), "--join 127.0.0.1:1 needs --join-token")
	wantGone(t, c.DataDir)
	wantLine(t, Join(t.Context(), c, "127.0.0.1:1", "pswt1.nonsense", &out), "token")
	wantGone(t, c.DataDir)
	c.ServiceCIDR = "10.50.0.0/16"
	wantLine(t, Join(t.Context(), c, "127.0.0.1:1", "t", &out), "--service-cidr 10.50.0.0/16: only the first node of a swarm may be given one")
	wantGone(t, c.DataDir)
	agent := c
	agent.Join, agent.JoinToken = "127.0.0.1:1", "t"
	wantLine(t, Run(t.Context(), agent), "--service-cidr 10.50.0.0/16: only the first node of a swarm may be given one")
	if exists(filepath.Join(c.DataDir, datadir.JoiningFile)) {
		t.Error("it began to join")
	}
	if err := os.RemoveAll(c.DataDir); err != nil {
		t.Fatal(err)
	}
	c.EncryptionKey = "/any"
	wantLine(t, Join(t.Context(), c, "127.0.0.1:1", "t", &out), "--encryption-key /any: only the first node of a swarm may be given one")
	wantGone(t, c.DataDir)
	if out.Len() > 0 {
		t.Errorf("said %q", out.String())
	}
}

// Data that is not a member's yet is nobody's to overwrite.
func TestJoinOverForeignData(t *testing.T) {
	c := hollowNode(t, "n2")
	if _, err := pki.Open(filepath.Join(c.DataDir, "pki")); err != nil {
		t.Fatal(err)
	}
	wantLine(t, Join(t.Context(), c, "127.0.0.1:1", "t", &strings.Builder{}), "has the data of another swarm already")
	if _, err := os.Stat(filepath.Join(c.DataDir, "pki", "ca.key")); err != nil {
		t.Error(err)
	}
}

// A node that was cut off while it joined must not begin a swarm of its own by mistake; it tries again under
// the key that the swarm may know already.
func TestInterruptedJoin(t *testing.T) {
	c := hollowNode(t, "n2")
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, datadir.JoiningFile), []byte(`{"name":"n2","key":"a2V5"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLine(t, Run(t.Context(), c), "was about to join a swarm when it was interrupted: say --join and --join-token again, or run: podman-swarm reset --yes")
}

// A node that has left stays away until it is reset, and nobody starts it again and again.
func TestLeftNode(t *testing.T) {
	c := hollowNode(t, "n1")
	if err := Init(t.Context(), c, &strings.Builder{}); err != nil {
		t.Fatal(err)
	}
	m, ok, err := datadir.LoadMembership(filepath.Join(c.DataDir, datadir.MemberFile))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	m.Left = time.Now()
	if err := m.Save(filepath.Join(c.DataDir, datadir.MemberFile)); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), c)
	wantLine(t, err, "node n1 left the swarm at ")
	if !Over(err) {
		t.Error("it would be started again")
	}
}

// The name of the machine is only a default: a node keeps its own, also when the machine is renamed.
func TestTheNodeKeepsItsName(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	m := datadir.Membership{Name: "n7", PodCIDR: firstPodCIDR, ServiceCIDR: firstServiceCIDR}
	if cfg, err := agrees(m, Config{NodeName: strings.ToLower(host)}); err != nil || cfg.NodeName != "n7" {
		t.Errorf("agrees = %q, %v", cfg.NodeName, err)
	}
	if _, err := agrees(m, Config{NodeName: "n8"}); err == nil {
		t.Error("another name was accepted")
	}
}
