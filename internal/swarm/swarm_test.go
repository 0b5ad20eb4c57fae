package swarm_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// TestEveryCall drives every method of the client through the handler to the backend and back.
func TestEveryCall(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			f := &fake{}
			c, _ := serve(t, f.backend(), http2)
			ctx := t.Context()
			var said []string
			say := func(s string) { said = append(said, s) }
			want := status()
			want.Health = want.Quorum.Words()
			equal := func(have any, err error) func(any) {
				t.Helper()
				return func(want any) {
					t.Helper()
					if err != nil || !reflect.DeepEqual(have, want) {
						t.Errorf("have %+v (%v)\nwant %+v", have, err, want)
					}
				}
			}
			ok := func(err error) {
				t.Helper()
				if err != nil {
					t.Error(err)
				}
			}
			equal(c.Status(ctx))(want)
			equal(c.Members(ctx))(members())
			equal(c.Tokens(ctx))([]swarm.Token{})
			equal(c.CreateToken(ctx, swarm.TokenRequest{TTL: swarm.Duration(time.Hour), Uses: 3, Description: "rack 2"}))(swarm.NewToken{
				Token: swarm.Token{ID: "t1", Uses: 3}, Secret: "pswt1.x", JoinCommand: "podman-swarm join 10.0.0.1:7946 --token pswt1.x",
			})
			ok(c.RevokeToken(ctx, "t1"))
			equal(c.Conflicts(ctx))([]swarm.Conflict{{ID: "k/1", Time: at(4)}})
			equal(c.Conflict(ctx, "k/1"))(conflict())
			ok(c.UndoConflict(ctx, "k/1", swarm.UndoRequest{Force: true}))
			equal(c.Backups(ctx))(backupList())
			equal(c.CreateBackup(ctx, swarm.BackupRequest{Reason: "before the upgrade"}, say))(backup())
			ok(c.RestoreBackup(ctx, "b 1", say))
			ok(c.RestoreFile(ctx, bytes.NewReader(make([]byte, 3<<20)), say))
			ok(c.DeleteBackup(ctx, "b1"))
			equal(c.BackupPolicy(ctx))(swarm.BackupPolicy{Every: swarm.Duration(time.Hour), Keep: 24})
			ok(c.SetBackupPolicy(ctx, swarm.BackupPolicy{Every: swarm.Duration(time.Minute), Keep: 2}))
			var file bytes.Buffer
			equal(c.DownloadBackup(ctx, "b1", &file))(int64(1 << 20))
			equal(c.Drill(ctx, swarm.DrillRequest{Node: "b", DryRun: true}, say))(swarm.DrillResult{
				Node: "b", DryRun: true, Pods: 2, Timings: []swarm.Timing{{Name: "detection", Took: swarm.Duration(2 * time.Second), Budget: swarm.Duration(3 * time.Second)}},
			})
			ok(c.RemoveNode(ctx, "b"))
			ok(c.FenceNode(ctx, "b"))
			ok(c.UnfenceNode(ctx, "b"))
			ok(c.Leave(ctx, swarm.LeaveRequest{Force: true}, say))
			ok(c.RotateCA(ctx, say))
			ok(c.RotateGossipKey(ctx, say))

			equal(f.calls, nil)(strings.Split(`status
members
tokens
token 1h0m0s 3 "rack 2"
revoke t1
conflicts
conflict k/1
undo k/1 true
backups
backup "before the upgrade"
restore b 1
restore 3145728 bytes
delete b1
policy
policy 1m0s 2
open b1
drill b true
rm b
fence b
unfence b
leave true
rotate-ca
rotate-gossip`, "\n"))
			equal(said, nil)([]string{"writing 3 objects", "reading it back", "restoring", "reading the file", "killing b", "every node trusts the new authority"})
		})
	}
}

func TestRefusals(t *testing.T) {
	f := &fake{}
	_, s := serve(t, f.backend(), true)
	for _, tc := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"unknown path", "GET", "/swarm/v1/nonsense", "", 404, "/swarm/v1/nonsense is not part of the extension API /swarm/v1"},
		{"no id", "DELETE", "/swarm/v1/tokens/", "", 404, "/swarm/v1/tokens/ is not part of the extension API /swarm/v1"},
		{"method", "PATCH", "/swarm/v1/tokens", "", 405, "PATCH is not possible here, only GET, POST"},
		{"status is read only", "POST", "/swarm/v1/status", "{}", 405, "POST is not possible here, only GET"},
		{"not JSON", "POST", "/swarm/v1/tokens", "ttl=1h", 400, "request: invalid character 't' in literal true (expecting 'r')"},
		{"two values", "POST", "/swarm/v1/tokens", "{} {}", 400, "request: more than one JSON value"},
		{"unknown field", "POST", "/swarm/v1/drill", `{"dryrunn":true}`, 400, `request: json: unknown field "dryrunn"`},
		{"unknown field where none is", "POST", "/swarm/v1/nodes/a/fence", `{"force":true}`, 400, `request: json: unknown field "force"`},
		{"duration", "POST", "/swarm/v1/tokens", `{"ttl":"soon"}`, 400, `request: "soon" is not a duration: say for example 90s, 30m or 24h`},
		{"negative ttl", "POST", "/swarm/v1/tokens", `{"ttl":"-1h"}`, 400, "ttl -1h0m0s is negative: say 0 for a token that never expires"},
		{"negative uses", "POST", "/swarm/v1/tokens", `{"uses":-1}`, 400, "uses -1 is negative: say 0 for no limit"},
		{"keep nothing", "PUT", "/swarm/v1/backup-policy", `{"every":"1h","keep":0}`, 400, "keep 0: at least the newest backup is kept"},
		{"negative period", "PUT", "/swarm/v1/backup-policy", `{"every":"-1h","keep":1}`, 400, "every -1h0m0s is negative: say 0 for no backups by themselves"},
		{"too large", "POST", "/swarm/v1/tokens", strings.Repeat(" ", 65<<10), 413, "the request is too large"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, header, body := request(t, s, tc.method, tc.path, tc.body)
			if want := fmt.Sprintf("{\"error\":%q}\n", tc.want); code != tc.code || body != want || header.Get("Content-Type") != "application/json" {
				t.Errorf("have %d %s %s, want %d %s", code, header.Get("Content-Type"), body, tc.code, want)
			}
			if code == 405 && header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
	if len(f.calls) > 0 {
		t.Errorf("refused requests reached the backend: %v", f.calls)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
		want string
	}{
		{swarm.NotFound("token %s does not exist", "t9"), 404, "token t9 does not exist"},
		{fmt.Errorf("revoke: %w", swarm.Refused("no leader")), 409, "revoke: no leader"},
		{swarm.Unavailable("x"), 503, "x"},
		{swarm.Forbidden("x"), 403, "x"},
		{errors.New("disk\n\tfull"), 500, "disk full"},
	} {
		c, _ := serve(t, (&fake{fail: tc.err}).backend(), true)
		for name, err := range map[string]error{
			"answer":           c.RevokeToken(t.Context(), "t9"),
			"silent stream":    c.Leave(t.Context(), swarm.LeaveRequest{}, func(string) {}),
			"talkative stream": c.RotateCA(t.Context(), func(string) {}),
		} {
			if err == nil || err.Error() != tc.want || swarm.Code(err) != tc.code {
				t.Errorf("%s: have %v (%d), want %s (%d)", name, err, swarm.Code(err), tc.want, tc.code)
			}
		}
	}
}

func TestMissingParts(t *testing.T) {
	c, _ := serve(t, swarm.Backend{Reader: reader{&fake{}}}, true)
	if _, err := c.Members(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := c.Drill(t.Context(), swarm.DrillRequest{}, nil)
	if err == nil || err.Error() != "this node has no drills" || swarm.Code(err) != http.StatusNotImplemented {
		t.Errorf("have %v (%d)", err, swarm.Code(err))
	}
}

func TestDownloadThatIsCutOff(t *testing.T) {
	c, _ := serve(t, (&fake{}).backend(), true)
	if n, err := c.DownloadBackup(t.Context(), "short", io.Discard); err == nil {
		t.Errorf("%d bytes of a longer file pass as all of it", n)
	}
}

func TestServersThatAreNotOurs(t *testing.T) {
	for _, tc := range []struct {
		name string
		code int
		body string
		want string
	}{
		{"plain Kubernetes", 404, `{"kind":"Status","message":"the server could not find the requested resource"}`, "URL has no /swarm/v1: it is no Podman Swarm, or an older release"},
		{"not authorized", 403, `{"kind":"Status","message":"User \"bob\" cannot get path"}`, `URL: User "bob" cannot get path`},
		{"a proxy", 502, "<html>\nbad gateway</html>", "URL: <html> bad gateway</html>"},
		{"nothing", 500, "", "URL: 500 Internal Server Error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.code)
				_, _ = io.WriteString(w, tc.body)
			}))
			defer s.Close()
			_, err := swarm.NewClient(s.Client(), s.URL).Status(t.Context())
			if err == nil || strings.ReplaceAll(err.Error(), s.URL, "URL") != tc.want || swarm.Code(err) != tc.code {
				t.Errorf("have %v (%d), want %s (%d)", err, swarm.Code(err), tc.want, tc.code)
			}
		})
	}
	s := httptest.NewServer(nil)
	s.Close()
	if _, err := swarm.NewClient(http.DefaultClient, s.URL).Status(t.Context()); !errors.Is(err, swarm.ErrUnreachable) || strings.Count(err.Error(), s.URL) != 1 {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestLongRunning(t *testing.T) {
	long := swarm.LongRunning()
	var have []string
	for _, r := range []string{
		"GET /swarm/v1/status", "GET /swarm/v1/backups", "POST /swarm/v1/backups", "POST /swarm/v1/backups/x/restore", "GET /swarm/v1/backups/x/file",
		"POST /swarm/v1/restore", "POST /swarm/v1/drill", "POST /swarm/v1/leave", "POST /swarm/v1/rotate-ca", "POST /swarm/v1/rotate-gossip-key",
		"POST /swarm/v1/nodes/a/fence", "POST /swarm/v1/tokens", "GET /api/v1/pods", "POST /drill",
	} {
		method, path, _ := strings.Cut(r, " ")
		if long(httptest.NewRequest(method, path, nil)) {
			have = append(have, r)
		}
	}
	want := []string{
		"POST /swarm/v1/backups", "POST /swarm/v1/backups/x/restore", "GET /swarm/v1/backups/x/file", "POST /swarm/v1/restore",
		"POST /swarm/v1/drill", "POST /swarm/v1/leave", "POST /swarm/v1/rotate-ca", "POST /swarm/v1/rotate-gossip-key",
	}
	if !slices.Equal(have, want) {
		t.Errorf("have %q\nwant %q", have, want)
	}
}

func TestHealthInWords(t *testing.T) {
	for _, tc := range []struct {
		q        swarm.Quorum
		writable bool
		want     string
	}{
		{swarm.Quorum{}, false, "starting: no voter is known yet"},
		{swarm.Quorum{Leader: true, Voters: 1, Alive: 1}, true, "writable: this is the only voter; let a second node join to survive its loss"},
		{swarm.Quorum{Leader: true, Voters: 2, Alive: 2}, true, "healthy: 2 of 2 voters answer; at the next loss a takeover makes the survivors writable after about 5 s"},
		{swarm.Quorum{Voters: 2, Alive: 1}, false, "read-only: 1 of 2 voters answer; a takeover makes this side writable within seconds"},
		{swarm.Quorum{Leader: true, Voters: 3, Alive: 3}, true, "healthy: 3 of 3 voters answer; any 1 may fail at once"},
		{swarm.Quorum{Leader: true, Voters: 3, Alive: 2}, true, "degraded, writable: 2 of 3 voters answer; at the next loss a takeover makes the survivors writable after about 5 s"},
		{swarm.Quorum{Leader: true, Voters: 3, Alive: 2, Freeze: true}, true, "degraded, writable: 2 of 3 voters answer; at the next loss writes wait for a majority (--on-quorum-loss=freeze)"},
		{swarm.Quorum{Voters: 3, Alive: 2}, false, "read-only: 2 of 3 voters answer; a leader is being elected"},
		{swarm.Quorum{Leader: true, Voters: 5, Alive: 5}, true, "healthy: 5 of 5 voters answer; any 2 may fail at once"},
		{swarm.Quorum{Leader: true, Voters: 5, Alive: 4}, true, "degraded, writable: 4 of 5 voters answer; 1 more may fail at once"},
		{swarm.Quorum{Voters: 5, Alive: 2, Freeze: true}, false, "read-only: 2 of 5 voters answer; writes wait for a majority (--on-quorum-loss=freeze)"},
	} {
		if have := tc.q.Words(); have != tc.want || tc.q.Writable() != tc.writable {
			t.Errorf("%+v: %v %q\nwant %v %q", tc.q, tc.q.Writable(), have, tc.writable, tc.want)
		}
	}
}
