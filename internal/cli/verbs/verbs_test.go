package verbs_test

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/cli/verbs"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

func now() time.Time { return time.Date(2026, 11, 8, 12, 0, 0, 0, time.UTC) }

// backend remembers what was done, and answers with one of everything.
type backend struct{ done *[]string }

func (b backend) do(format string, args ...any) error {
	*b.done = append(*b.done, fmt.Sprintf(format, args...))
	return nil
}

type (
	reader    struct{ backend }
	tokens    struct{ backend }
	conflicts struct{ backend }
	backups   struct{ backend }
	files     struct{ backend }
	drills    struct{ backend }
	nodes     struct{ backend }
)

func (reader) Status(context.Context) (swarm.Status, error) {
	return swarm.Status{Node: "ant", Health: "fine"}, nil
}

func (reader) Members(context.Context) ([]swarm.Member, error) {
	return []swarm.Member{{Name: "ant", State: swarm.StateAlive, Role: swarm.RoleLeader}, {Name: "bee", State: swarm.StateDead}}, nil
}

func (tokens) List(context.Context) ([]swarm.Token, error) { return []swarm.Token{{ID: "t1"}}, nil }

func (b tokens) Create(_ context.Context, r swarm.TokenRequest) (swarm.NewToken, error) {
	return swarm.NewToken{JoinCommand: "join"}, b.do("create token %s %d %s", r.TTL, r.Uses, r.Description)
}
func (b tokens) Revoke(_ context.Context, id string) error { return b.do("revoke %s", id) }

func one() swarm.Conflict {
	return swarm.Conflict{ID: "c1", Resource: "services", Namespace: "default", Name: "web", Overwritten: swarm.Version{Written: now()}}
}

func (conflicts) List(context.Context) ([]swarm.Conflict, error)      { return []swarm.Conflict{one()}, nil }
func (conflicts) Get(context.Context, string) (swarm.Conflict, error) { return one(), nil }
func (b conflicts) Undo(_ context.Context, id string, r swarm.UndoRequest) error {
	return b.do("undo %s %v", id, r.Force)
}

func (backups) List(context.Context) (swarm.BackupList, error) {
	items := []swarm.Backup{{ID: "b1", Node: "ant", Created: now().Add(-time.Hour), Revision: 7, Objects: 3}}
	return swarm.BackupList{List: swarm.List[swarm.Backup]{Items: items}, Silent: []string{"bee", "cow"}}, nil
}

func (b backups) Create(_ context.Context, r swarm.BackupRequest, say swarm.Progress) (swarm.Backup, error) {
	say("writing")
	return swarm.Backup{ID: "b2", Created: now()}, b.do("create backup %s", r.Reason)
}

func (b backups) Restore(_ context.Context, id string, say swarm.Progress) error {
	say("restoring")
	return b.do("restore %s", id)
}
func (b backups) Delete(_ context.Context, id string) error { return b.do("delete %s", id) }
func (backups) Policy(context.Context) (swarm.BackupPolicy, error) {
	return swarm.BackupPolicy{Every: swarm.Duration(time.Hour), Keep: 24}, nil
}

func (b backups) SetPolicy(_ context.Context, p swarm.BackupPolicy) error {
	return b.do("policy %s %d", p.Every, p.Keep)
}

func (files) Open(_ context.Context, id string) (io.ReadCloser, int64, error) {
	if id != "b1" {
		return nil, 0, swarm.NotFound("backup %s does not exist", id)
	}
	return io.NopCloser(strings.NewReader("content")), 7, nil
}

func (b files) RestoreFrom(_ context.Context, file io.Reader, _ swarm.Progress) error {
	data, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	return b.do("restore file %s", data)
}

func (b drills) Drill(_ context.Context, r swarm.DrillRequest, say swarm.Progress) (swarm.DrillResult, error) {
	say("looking")
	if r.Node == "" {
		r.Node = "bee"
	}
	return swarm.DrillResult{Node: r.Node, DryRun: r.DryRun, Pods: 2, Plan: []string{"its agent is killed"}}, b.do("drill %s %v", r.Node, r.DryRun)
}

func (b nodes) Remove(_ context.Context, n string) error  { return b.do("rm %s", n) }
func (b nodes) Fence(_ context.Context, n string) error   { return b.do("fence %s", n) }
func (b nodes) Unfence(_ context.Context, n string) error { return b.do("unfence %s", n) }
func (b nodes) Leave(context.Context, swarm.LeaveRequest, swarm.Progress) error {
	return b.do("leave")
}

// run runs one command line of psctl's against the backend. A person who answers sits at a terminal.
func run(t *testing.T, answer, line string) (out, said string, done []string, err error) {
	t.Helper()
	b := backend{&done}
	s := httptest.NewServer(swarm.Handler(swarm.Backend{
		Reader: reader{b}, Tokens: tokens{b}, Conflicts: conflicts{b}, Backups: backups{b}, Files: files{b}, Drills: drills{b}, Nodes: nodes{b},
	}))
	defer s.Close()
	streams, in, o, e := genericiooptions.NewTestIOStreams()
	in.WriteString(answer)
	h := verbs.Host{
		Streams: streams, Now: now, AtTerminal: func() bool { return answer != "" },
		Swarm: func() (*swarm.Client, error) { return swarm.NewClient(s.Client(), s.URL), nil },
		Kube: func() (kubernetes.Interface, error) {
			return fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ant", CreationTimestamp: metav1.NewTime(now().Add(-time.Hour))}, Spec: corev1.NodeSpec{Unschedulable: true}, Status: corev1.NodeStatus{
				NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.37.0"}, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "old"}}), nil
		},
	}
	root := &cobra.Command{Use: "psctl", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(verbs.Swarm(h), verbs.Node(h))
	root.SetArgs(strings.Split(line, " "))
	root.SetOut(o)
	root.SetErr(e)
	err = root.ExecuteContext(t.Context())
	return o.String(), e.String(), done, err
}

func TestVerbs(t *testing.T) {
	for _, tc := range []struct{ line, done, out string }{
		{"swarm token create --ttl 90m --uses 2 --description rack", "create token 1h30m0s 2 rack", "\n  join\n"},
		{"swarm token create", "create token 24h0m0s 0 ", "\n  join\n"},
		{"swarm token revoke t1", "revoke t1", "token t1 revoked\n"},
		{"swarm conflicts undo c1 --yes --force", "undo c1 true", "conflict c1 undone\n"},
		{"swarm backup create --reason upgrade", "create backup upgrade", "b2 "},
		{"swarm backup restore b1 --yes", "restore b1", "restored backup b1 of node ant, made 60m ago at revision 7 with 3 objects\n"},
		{"swarm backup delete b1 --yes", "delete b1", "backup b1 deleted\n"},
		{"swarm backup policy", "", "A backup is made every 1h; each node keeps the newest 24.\n"},
		{"swarm backup policy --keep 3", "policy 1h0m0s 3", "A backup is made every 1h; each node keeps the newest 3.\n"},
		{"swarm backup policy --every 0", "policy 0s 24", "No backup is made by itself; each node keeps the newest 24.\n"},
		{"swarm drill bee --dry-run", "drill bee true", "Nothing was changed.\n"},
		{"swarm drill --yes", "drill bee true, drill bee false", "2 pods of bee were replaced"},
		{"node fence bee --yes", "fence bee", "node/bee fenced\n"},
		{"node unfence bee", "unfence bee", "node/bee no longer fenced\n"},
		{"node rm bee --yes", "rm bee", "node/bee removed\n"},
		{"swarm conflicts", "", "services/web"},
		{"swarm conflicts list -o yaml", "", "items:\n- id: c1\n"},
		{"swarm conflicts show c1", "", "What undo would change:\n  (nothing)\n"},
		{"swarm status", "", "Health:       fine\n"},
		{"swarm members -o wide", "", "LINEAGE"},
	} {
		t.Run(tc.line, func(t *testing.T) {
			out, said, done, err := run(t, "", tc.line)
			if err != nil || strings.Join(done, ", ") != tc.done || !strings.Contains(out, tc.out) {
				t.Errorf("done %q, printed %s, said %s (%v)\nwant %q, %s", done, out, said, err, tc.done, tc.out)
			}
		})
	}
}

func TestProgressGoesBeside(t *testing.T) {
	out, said, _, err := run(t, "", "swarm backup create -o json")
	if err != nil || said != "     0s  writing\n" || !strings.HasPrefix(out, "{\n") {
		t.Errorf("said %q, printed %q (%v)", said, out, err)
	}
}

// TestRefused: one clear line each, and nothing done.
func TestRefused(t *testing.T) {
	const end = " Say --yes to go on"
	for _, tc := range []struct{ line, want string }{
		{"node fence bee", "You vouch that bee (dead) is off, or has lost its storage for good. Its StatefulSet pods and its pods with\nReadWriteOnce volumes will be started elsewhere; if it still runs them, two of each will write." + end},
		{"node rm ant", "ant (alive) will be removed: its certificate is refused from now on, its Node object and its pods are deleted\nand replaced elsewhere. It comes back only by joining with a new token; its data stays on its disk.\nIt is alive: running podman-swarm leave on ant is the orderly way." + end},
		{"node rm cat --yes", `no member is called "cat": there are ant, bee`},
		{"node rm", "psctl node rm needs the name of a node (see psctl node ls), and nothing else"},
		{"node frobnicate", `psctl node has no command "frobnicate": there are fence, ls, rm, unfence`},
		{"swarm conflicts undo c1", "services/web in default will be what it was on one side at 2026-11-08T12:00:00Z; what it is now is lost." + end},
		{"swarm backup restore b1", "The state of the whole swarm will be replaced with backup b1 of node ant, made 60m ago at revision 7 with 3 objects:\nevery change made since is lost, and pods that it does not know are removed." + end},
		{"swarm backup restore b9 --yes", `no node that answers has a backup "b9": see psctl swarm backup list`},
		{"swarm backup restore", "say either the ID of a backup (see psctl swarm backup list) or -f FILE"},
		{"swarm backup restore b1 -f x", "say either the ID of a backup (see psctl swarm backup list) or -f FILE"},
		{"swarm backup delete b1", "The file of backup b1 of node ant, made 60m ago at revision 7 with 3 objects will be removed." + end},
		{"swarm members -o xml", "-o xml: the formats are json, yaml and wide"},
		{"swarm backup policy --keep 0", "keep 0: at least the newest backup is kept"},
		{"swarm token create --ttl -1h", "ttl -1h0m0s is negative: say 0 for a token that never expires"},
	} {
		t.Run(tc.line, func(t *testing.T) {
			_, _, done, err := run(t, "", tc.line)
			if err == nil || err.Error() != tc.want || len(done) > 0 {
				t.Errorf("done %q, refused with\n%v\nwant\n%s", done, err, tc.want)
			}
		})
	}
}

func TestAsks(t *testing.T) {
	for answer, did := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false, "yessir": false} {
		_, said, done, err := run(t, answer, "node fence bee")
		if (err == nil) != did || (len(done) == 1) != did || !strings.HasSuffix(said, "\nContinue? [y/N] ") {
			t.Errorf("%q: done %q, said %q (%v)", answer, done, said, err)
		}
	}
	_, said, done, err := run(t, "n\n", "swarm drill")
	if err == nil || strings.Join(done, "") != "drill bee true" || !strings.Contains(said, "The agent and the pods of bee will be killed; 2 pods will be replaced elsewhere:\n  its agent is killed\n") {
		t.Errorf("a drill that was not agreed to: done %q, said %q (%v)", done, said, err)
	}
}

func TestNodesOfBothSides(t *testing.T) {
	out, _, _, err := run(t, "", "node ls")
	want := `NAME   STATUS                     STATE    ROLE     AGE         VERSION   RELEASE   ADDRESS
ant    Ready,SchedulingDisabled   alive    leader   60m         v1.37.0   <none>    <none>
bee    <none>                     dead     <none>   <unknown>   <none>    <none>    <none>
old    Unknown                    <none>   <none>   <unknown>   <none>    <none>    <none>
`
	if err != nil || out != want {
		t.Errorf("have\n%swant\n%s(%v)", out, want, err)
	}
}

func TestFilesOfBackups(t *testing.T) {
	file := filepath.Join(t.TempDir(), "saved")
	if _, _, _, err := run(t, "", "swarm backup download b9 -f "+file); err == nil || err.Error() != "backup b9 does not exist" {
		t.Errorf("have %v", err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a failed download left a file (%v)", err)
	}
	if _, _, _, err := run(t, "", "swarm backup download b1 -f "+file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || info.Size() != 7 {
		t.Errorf("saved as %v (%v)", info, err)
	}
	if _, _, _, err := run(t, "", "swarm backup download b1 -f "+file); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("have %v", err)
	}
	if out, said, _, err := run(t, "", "swarm backup list --no-headers"); err != nil || !strings.HasPrefix(out, "b1 ") || said != "Warning: not listed are the backups of bee, cow: no answer from there\n" {
		t.Errorf("listed %q, said %q (%v)", out, said, err)
	}
	if out, _, _, err := run(t, "", "swarm backup download b1 -f -"); err != nil || out != "content" {
		t.Errorf("printed %q (%v)", out, err)
	}
	if _, _, done, err := run(t, "", "swarm backup restore --yes -f "+file); err != nil || strings.Join(done, "") != "restore file content" {
		t.Errorf("done %q (%v)", done, err)
	}
}

func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"__complete node fence b": "bee\n:4\n", "__complete swarm drill ": "ant\nbee\n:4\n", "__complete swarm token revoke ": "t1\n:4\n",
		"__complete swarm conflicts show ": "c1\n:4\n", "__complete swarm backup restore ": "b1\n:4\n", "__complete node fence ant b": ":4\n",
	} {
		if out, _, _, err := run(t, "", line); err != nil || out != want {
			t.Errorf("%s: %q (%v), want %q", line, out, err, want)
		}
	}
}
