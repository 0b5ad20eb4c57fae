//go:build e2e

package cluster

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	swarmv1 "github.com/podman-swarm/podman-swarm/internal/swarm"
	"github.com/podman-swarm/podman-swarm/test/lab"
)

// TestRefusals lets a newcomer join with tokens and names that are not good: one line says why, and
// nothing is left of the try, here or there. (What a wrong clock does is told by the tests of
// internal/join: no lab host has a clock of its own.)
func TestRefusals(t *testing.T) {
	c := machines(t, 2)
	member, newcomer := c.Hosts[0], c.Hosts[1]
	check(t, member.StartAgent(t.Context()))
	token := func(flags ...string) pki.Token {
		t.Helper()
		out, err := member.Swarm(t.Context(), append([]string{"token", "create"}, flags...)...)
		check(t, err)
		words := strings.Fields(out)
		parsed, err := pki.ParseToken(words[len(words)-1])
		check(t, err)
		return parsed
	}
	good, once, brief, revoked := token(), token("--uses", "1"), token("--ttl", "1s"), token()
	_, err := member.Swarm(t.Context(), "token", "revoke", revoked.ID)
	check(t, err)
	if _, errOut, err := tryJoin(t, member, newcomer, "first", once.String()); err != nil {
		t.Fatalf("join by a good token: %v: %s", err, errOut)
	}
	pause(t, time.Second) // brief has expired
	wrong := good
	wrong.Secret[0] ^= 1
	text := good.String()
	mistyped := text[:len(text)-1] + map[bool]string{true: "b", false: "a"}[strings.HasSuffix(text, "a")]

	before := known(t, member)
	for _, tc := range []struct{ name, token, node, want string }{
		{"mistyped token", mistyped, "late", "mistyped"},
		{"wrong token", wrong.String(), "late", "wrong join token"},
		{"expired token", brief.String(), "late", "expired at"},
		{"used up token", once.String(), "late", "used up"},
		{"revoked token", revoked.String(), "late", "was revoked"},
		{"token of another cluster", pki.NewToken(sha256.Sum256([]byte("another"))).String(), "late", "another cluster"},
		{"name of a node", good.String(), member.Name, "has a node " + member.Name},
		{"name of a node that was admitted", good.String(), "first", "has a node first"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, errOut, err := tryJoin(t, member, newcomer, tc.node, tc.token)
			if err == nil || err.Error() != "exit status 1" {
				t.Errorf("ended by %v, want exit status 1", err)
			}
			if lines := strings.Split(strings.TrimSpace(errOut), "\n"); len(lines) != 1 || !strings.Contains(lines[0], tc.want) {
				t.Errorf("want one line with %q:\n%s", tc.want, errOut)
			}
			if left, err := os.ReadDir(dir); !os.IsNotExist(err) {
				t.Errorf("%s was left behind: %v %v", filepath.Base(dir), left, err)
			}
			if now := known(t, member); now != before {
				t.Errorf("the swarm knows now\n%s, before\n%s", now, before)
			}
		})
	}
}

// tryJoin runs podman-swarm join on a machine with a data directory of its own, which it names.
func tryJoin(t *testing.T, member, newcomer *lab.Host, name, token string) (dir, errOut string, err error) {
	t.Helper()
	inside, _ := newcomer.DataDir()
	inside = filepath.Join(inside, strings.ReplaceAll(t.Name(), "/", "-")) // of the machine's own disk
	_, errOut, err = newcomer.Run(t.Context(), "", newcomer.Bin("podman-swarm"), "join", member.Addr(), "--token", token,
		"--node-name", name, "--advertise-addr", newcomer.Addr(), "--data-dir", inside, "--no-service")
	return newcomer.Outside(inside), errOut, err
}

// known is what a swarm knows of its nodes, its members and its tokens.
func known(t *testing.T, h *lab.Host) string {
	t.Helper()
	var members swarmv1.List[swarmv1.Member]
	var tokens swarmv1.List[swarmv1.Token]
	check(t, h.Get(t.Context(), "/swarm/v1/members", &members))
	check(t, h.Get(t.Context(), "/swarm/v1/tokens", &tokens))
	nodes, errOut, err := h.Psctl(t.Context(), "", "get", "nodes", "-o", "name")
	if err != nil {
		t.Fatalf("get nodes: %v: %s", err, errOut)
	}
	var names []string
	for _, m := range members.Items {
		names = append(names, m.Name)
	}
	return fmt.Sprintf("nodes %q, members %q, tokens %+v", strings.Fields(nodes), names, tokens.Items)
}
