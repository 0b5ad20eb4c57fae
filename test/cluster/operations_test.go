//go:build e2e

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

const (
	// webPods is how many pods run while the document is followed.
	webPods = 6
	// copyOf is what the document calls the copy of a backup.
	copyOf = "swarm.tar.gz"
)

// operator is a person who follows docs/operations.md on three machines, word for word.
type operator struct {
	t       *testing.T
	c       *lab.Cluster
	members []string // of the swarm, as far as the operator knows
	token   string   // the last one that was printed
	said    string   // what the last block printed
	pods    []string // UIDs, before the upgrade
	old     string   // kubeconfig, from before everything was lost
}

// TestOperations follows docs/operations.md: every block, in its order, on the machine that it names.
// What a person brings about between the blocks (work, mistakes, disasters) is done at the headings.
func TestOperations(t *testing.T) {
	all, err := blocks(readHandbook(t))
	check(t, err)
	o := &operator{t: t, c: machines(t, 3)}
	o.furnish()
	before := map[string]func(){
		"Look at it": o.work, "Upgrade": o.notePods, "Back up": o.write, "Over a swarm that runs": o.spoil,
		"Everything is lost": o.loseEverything, "Rehearse": o.spread,
	}
	after := map[string]func(){
		"Join": o.healthy, "Tokens": o.healthy, "Look at it": o.saidHealthy, "Take a node out of service": o.working,
		"Upgrade": o.keptPods, "Rotate keys": o.working, "Back up": o.hasCopy, "Over a swarm that runs": o.restored,
		"Everything is lost": o.regained, "Rehearse": o.rehearsed,
	}
	for i, b := range all {
		if i == 0 || all[i-1].heading != b.heading {
			t.Logf("## %s", b.heading)
			act(before, b.heading)
		}
		o.follow(b)
		if i+1 == len(all) || all[i+1].heading != b.heading {
			act(after, b.heading)
		}
	}
	for heading := range before { // a heading that was renamed would lose its meaning here in silence
		t.Errorf("no blocks below the heading %q", heading)
	}
	for heading := range after {
		t.Errorf("no blocks below the heading %q to judge", heading)
	}
}

func act(at map[string]func(), heading string) {
	if do := at[heading]; do != nil {
		do()
	}
	delete(at, heading)
}

// furnish makes the machines those of the document: their names, their users' home directories, and
// a /tmp of their own.
func (o *operator) furnish() {
	o.t.Helper()
	for i, h := range o.c.Hosts {
		h.Data = "/var/lib/podman-swarm"
		if h.Rootless {
			h.Data = "/home/podlab/.local/share/podman-swarm"
		}
		for _, command := range [][]string{
			{"hostname", fmt.Sprintf("n%d", i+1)},
			{"mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp"},
			{"mkdir", "-p", "/run/person"},
		} {
			_, err := h.Lab(o.t.Context(), append([]string{"root", h.Name}, command...)...)
			check(o.t, err)
		}
	}
}

func (o *operator) host(name string) *lab.Host {
	if i := slices.Index([]string{"n1", "n2", "n3"}, name); i >= 0 {
		return o.c.Hosts[i]
	}
	return o.c.Hosts[0]
}

// home is where the person's shell begins on a machine.
func home(h *lab.Host) string {
	if h.Rootless {
		return "/home/podlab"
	}
	return "/run/person"
}

// shell runs a script on a machine as a person there would, until the first command that fails.
func (o *operator) shell(h *lab.Host, script string) (string, error) {
	args := []string{"env", "-u", "KUBECONFIG", "HOME=" + home(h), "PATH=" + filepath.Dir(h.Bin("podman-swarm")) + ":" + os.Getenv("PATH"), "TOKEN=" + o.token}
	for i, other := range o.c.Hosts {
		args = append(args, fmt.Sprintf("N%d=%s", i+1, other.Addr()))
	}
	out, errOut, err := h.Run(o.t.Context(), "", append(args, "sh", "-euc", "cd\n"+script)...)
	return out + errOut, err
}

// tell is shell for what must succeed.
func (o *operator) tell(h *lab.Host, script string) string {
	o.t.Helper()
	out, err := o.shell(h, script)
	if err != nil {
		o.t.Fatalf("%s: %s: %v\n%s", h.Name, script, err, out)
	}
	return out
}

var printedToken = regexp.MustCompile(`pswt1\.[a-z0-9.]+`)

// follow does what one block says.
func (o *operator) follow(b block) {
	o.t.Helper()
	h := o.host(b.host)
	switch b.when {
	case withoutSystemd: // the supervisor is the harness
		if b.script != "podman-swarm agent\n" {
			o.t.Fatalf("%s: only the agent has a supervisor here:\n%s", b, b.script)
		}
		o.startAgent(b.host)
		return
	case withSystemd:
		if b.script != "systemctl restart podman-swarm\n" {
			o.t.Fatalf("%s: the harness is no systemd that can do this:\n%s", b, b.script)
		}
		check(o.t, h.RestartAgent(o.t.Context()))
		return
	case whenEnded:
		eventually(o.t, time.Minute, func() error {
			if pids := h.Pids("podman-swarm agent"); len(pids) > 0 {
				return fmt.Errorf("the agent on %s runs", b.host)
			}
			return nil
		})
	}
	begun := time.Now()
	out, err := o.shell(h, b.script)
	if err != nil {
		o.t.Fatalf("%s: on %s: %v\n%s\n%s", b, b.host, err, b.script, out)
	}
	o.t.Logf("%s on %s, %s:\n%s\n%s", b, b.host, time.Since(begun).Round(time.Millisecond), b.script, out)
	o.said = out
	if tokens := printedToken.FindAllString(out, -1); len(tokens) > 0 {
		o.token = tokens[len(tokens)-1]
	}
	if strings.Contains(b.script, "podman-swarm join") { // "With systemd that is all; without, start the agent as on n1."
		o.startAgent(b.host)
	}
	if strings.Contains(b.script, "podman-swarm leave") {
		o.members = slices.DeleteFunc(o.members, func(name string) bool { return name == b.host })
	}
}

func (o *operator) startAgent(name string) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	check(o.t, o.host(name).StartAgent(ctx))
	o.members = append(o.members, name)
}

// allHealthy asks every member: all nodes are Ready, and all voters answer.
func (o *operator) allHealthy() error {
	var hosts []*lab.Host
	for _, name := range o.members {
		hosts = append(hosts, o.host(name))
	}
	if err := allReady(o.t.Context(), hosts, len(hosts)); err != nil {
		return err
	}
	for _, h := range hosts {
		out, err := o.shell(h, "podman-swarm status")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if want := fmt.Sprintf("healthy: %d of %[1]d voters answer", len(hosts)); !strings.Contains(out, want) {
			return fmt.Errorf("status on %s, want %q:\n%s", h.Name, want, out)
		}
	}
	return nil
}

func (o *operator) healthy() {
	o.t.Helper()
	if len(o.members) != 3 {
		o.t.Fatalf("members %q, want three", o.members)
	}
	eventually(o.t, time.Minute, o.allHealthy)
}

// saidHealthy judges the status that the document told to look at.
func (o *operator) saidHealthy() {
	o.t.Helper()
	if !strings.Contains(o.said, "healthy: 3 of 3 voters answer; any 1 may fail at once") {
		o.t.Errorf("status is not as the document shows it:\n%s", o.said)
	}
}

// work gives the swarm something to do.
func (o *operator) work() {
	o.t.Helper()
	apply(o.t, o.c.Hosts[0], fmt.Sprintf(stateless, webPods))
	o.working()
}

// working waits until the swarm does it, all of it.
func (o *operator) working() {
	o.t.Helper()
	o.healthy()
	eventually(o.t, time.Minute, func() error {
		_, err := o.webPods()
		return err
	})
}

// webPods are the UIDs of the Deployment's pods, which all run.
func (o *operator) webPods() ([]string, error) {
	list, err := pods(o.t.Context(), o.c.Hosts[0], "web")
	if err != nil {
		return nil, err
	}
	var uids []string
	for _, p := range list {
		if podReady(&p) {
			uids = append(uids, string(p.UID))
		}
	}
	slices.Sort(uids)
	if len(uids) != webPods || len(list) != webPods {
		return uids, fmt.Errorf("%d pods, of them %d ready; want %d", len(list), len(uids), webPods)
	}
	return uids, nil
}

func (o *operator) notePods() {
	o.t.Helper()
	o.working()
	var err error
	o.pods, err = o.webPods()
	check(o.t, err)
}

// keptPods: a restarted agent costs no pod.
func (o *operator) keptPods() {
	o.t.Helper()
	o.saidHealthy()
	o.working()
	now, err := o.webPods()
	check(o.t, err)
	if !slices.Equal(now, o.pods) {
		o.t.Errorf("pods were replaced by the restart of an agent: %q, before %q", now, o.pods)
	}
}
