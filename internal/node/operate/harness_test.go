package operate

import (
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// TestMain has more tests run at the same time than there are processors: those with several nodes mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// operated are nodes with everything of this package running on them.
type operated struct {
	nodes    []*nodetest.Node
	backends []swarm.Backend
	configs  []Config
	client   *fake.Clientset
	left     chan string

	mu   sync.Mutex
	said []string
}

func operateOn(t *testing.T, names ...string) *operated {
	t.Helper()
	o := &operated{client: fake.NewClientset(), left: make(chan string, len(names))}
	o.nodes = nodetest.Swarm(t, names...)
	for _, n := range o.nodes {
		if _, err := o.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		cfg, b := o.equip(t, n)
		o.backends, o.configs = append(o.backends, b), append(o.configs, cfg)
	}
	return o
}

// equip has a node that has just started do and answer everything of this package.
func (o *operated) equip(t *testing.T, n *nodetest.Node) (Config, swarm.Backend) {
	t.Helper()
	cfg := Config{
		Node: n.Name, Addr: n.Addr, Store: n.Store, Peers: n.Peers, Keys: n.Keys, Cert: n.Cert, Tokens: n.Admitter.Tokens(),
		Client: o.client, REST: noAPI(t), Backups: t.TempDir(), Release: "v-test", Log: slog.New(slog.DiscardHandler),
		Left: func() error { o.left <- n.Name; return nil },
	}
	b, _ := New(cfg)
	var parts sync.WaitGroup
	parts.Go(func() { _ = Sharing{Keys: n.Keys, Store: n.Store, Peers: n.Peers, Log: cfg.Log}.Run(t.Context()) })
	parts.Go(func() { _ = Removals{Store: n.Store, Peers: n.Peers, Log: cfg.Log}.Run(t.Context()) })
	t.Cleanup(parts.Wait)
	return cfg, b
}

func (o *operated) say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said = append(o.said, fmt.Sprintf(format, args...))
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line with %q", err, want)
	}
}

func TestTokens(t *testing.T) {
	o := operateOn(t, "n1")
	tokens := o.backends[0].Tokens
	for _, req := range []swarm.TokenRequest{{TTL: 1}, {TTL: -1}, {TTL: swarm.Duration(longest + 1)}, {Uses: -1}} {
		_, err := tokens.Create(t.Context(), req)
		wantError(t, err, "a token lives 1s to")
	}
	made, err := tokens.Create(t.Context(), swarm.TokenRequest{TTL: swarm.Duration(time.Hour), Uses: 2, Description: "for n2"})
	if err != nil || !strings.HasPrefix(made.Secret, "pswt1.") || made.JoinCommand != "podman-swarm join "+o.nodes[0].Addr+" --token "+made.Secret {
		t.Fatalf("%+v, %v", made, err)
	}
	endless, err := tokens.Create(t.Context(), swarm.TokenRequest{})
	if err != nil || !endless.Expires.IsZero() {
		t.Errorf("without an end: %+v, %v", endless, err)
	}
	list, err := tokens.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if data, err := json.Marshal(list); err != nil || strings.Contains(string(data), made.Secret[len(made.Secret)-20:]) {
		t.Errorf("the list tells the secret: %s, %v", data, err)
	}
	if err := tokens.Revoke(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	wantError(t, tokens.Revoke(t.Context(), "nonsense"), `there is no token "nonsense"`)
	if list, err := tokens.List(t.Context()); err != nil || len(list) != 1 || list[0].ID != endless.ID {
		t.Errorf("after the end of one: %+v, %v", list, err)
	}
}

// A removed node is refused everywhere at once, forgotten, and may come back under another key.
func TestRemove(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2", "n3")
	nodes := o.backends[0].Nodes
	wantError(t, nodes.Remove(t.Context(), "n1"), "this is node n1 itself")
	wantError(t, nodes.Remove(t.Context(), "n3"), "node n3 is alive")
	wantError(t, nodes.Remove(t.Context(), "n9"), `there is no node "n9"`)
	wantError(t, nodes.Fence(t.Context(), "n3"), "node n3 is alive")
	wantError(t, nodes.Unfence(t.Context(), "n9"), `there is no node "n9"`)

	old := o.nodes[2].Cert.Certificate().Leaf
	o.nodes[2].Die()
	for _, n := range o.nodes[:2] { // each hears of it by itself, and both are asked below
		nodetest.Eventually(t, n.Name+" knows that n3 is dead", func() bool { m, _ := n.Peers.Member("n3"); return !m.Alive() })
	}
	if err := nodes.Fence(t.Context(), "n3"); err != nil {
		t.Error(err)
	}
	members, err := o.backends[1].Reader.Members(t.Context())
	if err != nil || len(members) != 3 || !members[2].Fenced || members[2].State == swarm.StateAlive {
		t.Errorf("%+v, %v", members, err)
	}
	if err := nodes.Remove(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	for _, n := range o.nodes[:2] {
		nodetest.Eventually(t, n.Name+" forgets n3", func() bool { _, ok := n.Peers.Member("n3"); return !ok })
		wantError(t, RefuseRemoved(n.Store.View(), old, time.Now()), "it was removed from the swarm at")
		if err := RefuseRemoved(n.Store.View(), n.Cert.Certificate().Leaf, time.Now()); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}
	other := *old
	other.RawSubjectPublicKeyInfo = []byte("another key")
	if err := RefuseRemoved(o.nodes[0].Store.View(), &other, time.Now()); err != nil {
		t.Errorf("who joined again under the name: %v", err)
	}
	if list, err := o.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 2 {
		t.Errorf("%d node objects, %v", len(list.Items), err)
	}
}

// Who was admitted and has not begun is no dead node yet; who had begun and is not heard of is one.
func TestMembersThatAreNotHeardOf(t *testing.T) {
	o := operateOn(t, "n1")
	for _, name := range []string{"n2", "n3"} {
		admitted, err := json.Marshal(join.Node{Name: name, Address: "10.0.0.9:7946", Admitted: time.Now(), Confirmed: true})
		if err != nil {
			t.Fatal(err)
		}
		o.nodes[0].Put(t, join.NodesPrefix+name, string(admitted))
	}
	if _, err := o.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	members, err := o.backends[0].Reader.Members(t.Context())
	if err != nil || len(members) != 3 || members[1].State != swarm.StateJoining || members[2].State != swarm.StateDead {
		t.Errorf("%+v, %v; want n1, n2 joining and n3 dead", members, err)
	}
}

func TestRemovalsByDate(t *testing.T) {
	now := time.Now()
	cert := &x509.Certificate{NotBefore: now.Add(-time.Hour)}
	for name, tt := range map[string]struct {
		r    Removal
		want bool
	}{
		"removed after it was issued":            {Removal{Removed: now.Add(-time.Minute)}, true},
		"issued after it was removed":            {Removal{Removed: now.Add(-2 * time.Hour)}, false},
		"dated back a little":                    {Removal{Removed: now.Add(-time.Hour + certSkew/2)}, false},
		"it leaves, and has yet to say good-bye": {Removal{Removed: now.Add(-time.Minute), From: now.Add(time.Minute)}, false},
		"it has left":                            {Removal{Removed: now.Add(-2 * time.Minute), From: now.Add(-time.Minute)}, true},
	} {
		if got := tt.r.refuses(cert, now); got != tt.want {
			t.Errorf("%s: refused %v, want %v", name, got, tt.want)
		}
	}
}

// A node whose key was not known when it was removed, and that joined again within the same second,
// as after a restore of everything, is not refused for the date of its certificate.
func TestRemovedAndBackAtOnce(t *testing.T) {
	o := operateOn(t, "n1")
	n := o.nodes[0]
	cert := n.Cert.Certificate().Leaf
	write := func(key string, v any) {
		t.Helper()
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Store.Apply(t.Context(), state.Write{Key: key, Value: data, Expect: state.Any}); err != nil {
			t.Fatal(err)
		}
	}
	removed := Removal{Removed: cert.NotBefore.Add(certSkew + time.Second/2)}
	record := join.Node{Name: "n1", PodCIDR: netip.MustParsePrefix("10.244.7.0/24"), Key: "another's", Confirmed: true}
	write(RemovedPrefix+"n1", removed)
	write(join.NodesPrefix+"n1", record)
	wantError(t, RefuseRemoved(n.Store.View(), cert, time.Now()), "it was removed from the swarm at")
	record.Key = join.KeyID(cert.RawSubjectPublicKeyInfo)
	write(join.NodesPrefix+"n1", record)
	if err := RefuseRemoved(n.Store.View(), cert, time.Now()); err != nil {
		t.Error(err)
	}
}
