package swarm_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

func at(minute int) time.Time { return time.Date(2026, 11, 1, 12, minute, 0, 0, time.UTC) }

// fake is a swarm in memory. Its parts are types of their own, as they are in a node.
type fake struct {
	mu    sync.Mutex
	calls []string
	fail  error // what every call answers
}

func (f *fake) called(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.fail
}

type (
	reader    struct{ *fake }
	tokens    struct{ *fake }
	conflicts struct{ *fake }
	backups   struct{ *fake }
	files     struct{ *fake }
	drills    struct{ *fake }
	nodes     struct{ *fake }
	keys      struct{ *fake }
)

func members() []swarm.Member {
	return []swarm.Member{
		{Name: "a", Address: "10.0.0.1:7946", APIAddress: "10.0.0.1:6443", State: swarm.StateAlive, Since: at(1), Role: swarm.RoleLeader, Release: "0.3.0", Lineage: "l2"},
		{Name: "b", Address: "10.0.0.2:7946", State: swarm.StateDead, Since: at(2), Role: swarm.RoleVoter, Lineage: "l2", Lag: 7, Fenced: true},
	}
}

func status() swarm.Status {
	return swarm.Status{
		ClusterID: "c1", Node: "b", Leader: "a", Revision: 1 << 40, Quorum: swarm.Quorum{Leader: true, Voters: 3, Alive: 3}, Conflicts: 2, Members: members(),
		Lineage: swarm.Lineage{ID: "l2", Born: at(3), Parents: []swarm.Ancestor{{ID: "l1", Time: at(3), Revision: 9}}},
	}
}

func conflict() swarm.Conflict {
	return swarm.Conflict{
		ID: "k/1", Key: "/registry/configmaps/default/x", Resource: "configmaps", Namespace: "default", Name: "x", Time: at(4),
		Kept:        swarm.Version{Written: at(2), Node: "a", Lineage: "l2", Value: &swarm.Value{Object: []byte(`{"kind":"ConfigMap"}`)}},
		Overwritten: swarm.Version{Written: at(1), Node: "b", Lineage: "l3", Value: &swarm.Value{Raw: []byte{0, 255}}},
	}
}

func backupList() swarm.BackupList {
	return swarm.BackupList{List: swarm.List[swarm.Backup]{Items: []swarm.Backup{backup()}}, Silent: []string{"b"}}
}

func backup() swarm.Backup {
	return swarm.Backup{ID: "2026-11-01T12", Node: "a", Path: "/data/backups/x", Created: at(5), Revision: 9, Objects: 3, Size: 4096, Verified: at(5)}
}

func (r reader) Status(context.Context) (swarm.Status, error) { return status(), r.called("status") }

func (r reader) Members(context.Context) ([]swarm.Member, error) {
	return members(), r.called("members")
}

func (t tokens) List(context.Context) ([]swarm.Token, error) { return nil, t.called("tokens") }
func (t tokens) Create(_ context.Context, r swarm.TokenRequest) (swarm.NewToken, error) {
	err := t.called("token %s %d %q", r.TTL, r.Uses, r.Description)
	return swarm.NewToken{Token: swarm.Token{ID: "t1", Uses: r.Uses}, Secret: "pswt1.x", JoinCommand: "podman-swarm join 10.0.0.1:7946 --token pswt1.x"}, err
}
func (t tokens) Revoke(_ context.Context, id string) error { return t.called("revoke %s", id) }

func (c conflicts) List(context.Context) ([]swarm.Conflict, error) {
	return []swarm.Conflict{{ID: "k/1", Time: at(4)}}, c.called("conflicts")
}

func (c conflicts) Get(_ context.Context, id string) (swarm.Conflict, error) {
	return conflict(), c.called("conflict %s", id)
}

func (c conflicts) Undo(_ context.Context, id string, r swarm.UndoRequest) error {
	return c.called("undo %s %v", id, r.Force)
}

func (b backups) List(context.Context) (swarm.BackupList, error) {
	return backupList(), b.called("backups")
}

func (b backups) Create(_ context.Context, r swarm.BackupRequest, say swarm.Progress) (swarm.Backup, error) {
	say("writing %d objects", 3)
	say("reading\nit back")
	return backup(), b.called("backup %q", r.Reason)
}

func (b backups) Restore(_ context.Context, id string, say swarm.Progress) error {
	say("restoring")
	return b.called("restore %s", id)
}
func (b backups) Delete(_ context.Context, id string) error { return b.called("delete %s", id) }
func (b backups) Policy(context.Context) (swarm.BackupPolicy, error) {
	return swarm.BackupPolicy{Every: swarm.Duration(time.Hour), Keep: 24}, b.called("policy")
}

func (b backups) SetPolicy(_ context.Context, p swarm.BackupPolicy) error {
	return b.called("policy %s %d", p.Every, p.Keep)
}

func (f files) Open(_ context.Context, id string) (io.ReadCloser, int64, error) {
	content := bytes.Repeat([]byte("x"), 1<<20)
	size := int64(len(content))
	if id == "short" {
		size++ // the disk has less than its directory says
	}
	return io.NopCloser(bytes.NewReader(content)), size, f.called("open %s", id)
}

func (f files) RestoreFrom(_ context.Context, file io.Reader, say swarm.Progress) error {
	say("reading the file") // before the upload is complete
	n, err := io.Copy(io.Discard, file)
	if err != nil {
		return err
	}
	return f.called("restore %d bytes", n)
}

func (d drills) Drill(_ context.Context, r swarm.DrillRequest, say swarm.Progress) (swarm.DrillResult, error) {
	say("killing %s", r.Node)
	return swarm.DrillResult{Node: r.Node, DryRun: r.DryRun, Pods: 2, Timings: []swarm.Timing{{Name: "detection", Took: swarm.Duration(2 * time.Second), Budget: swarm.Duration(3 * time.Second)}}},
		d.called("drill %s %v", r.Node, r.DryRun)
}

func (n nodes) Remove(_ context.Context, name string) error  { return n.called("rm %s", name) }
func (n nodes) Fence(_ context.Context, name string) error   { return n.called("fence %s", name) }
func (n nodes) Unfence(_ context.Context, name string) error { return n.called("unfence %s", name) }
func (n nodes) Leave(_ context.Context, r swarm.LeaveRequest, _ swarm.Progress) error {
	return n.called("leave %v", r.Force)
}

func (k keys) RotateCA(_ context.Context, say swarm.Progress) error {
	say("every node trusts the new authority")
	return k.called("rotate-ca")
}

func (k keys) RotateGossipKey(context.Context, swarm.Progress) error {
	return k.called("rotate-gossip")
}

func (f *fake) backend() swarm.Backend {
	return swarm.Backend{
		Reader: reader{f}, Tokens: tokens{f}, Conflicts: conflicts{f}, Backups: backups{f},
		Files: files{f}, Drills: drills{f}, Nodes: nodes{f}, Keys: keys{f},
	}
}

// serve returns a client of a server with this backend, over HTTP/2 as a node speaks it, or HTTP/1.
func serve(t *testing.T, b swarm.Backend, http2 bool) (*swarm.Client, *httptest.Server) {
	t.Helper()
	s := httptest.NewUnstartedServer(swarm.Handler(b))
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return swarm.NewClient(s.Client(), s.URL), s
}

func request(t *testing.T, s *httptest.Server, method, path, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}
