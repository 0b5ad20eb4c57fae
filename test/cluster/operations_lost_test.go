//go:build e2e

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// write makes what must be there after every restore.
func (o *operator) write() {
	o.t.Helper()
	o.tell(o.c.Hosts[0], "psctl create configmap greeting --from-literal=text=hello")
}

// hasCopy: the copy of the backup lies where the document put it.
func (o *operator) hasCopy() {
	o.t.Helper()
	list := o.tell(o.c.Hosts[0], "psctl swarm backup list; psctl swarm backup policy")
	for _, want := range []string{"before-upgrade", "true", "30m"} {
		if !strings.Contains(list, want) {
			o.t.Errorf("the list of backups and their policy do not say %q:\n%s", want, list)
		}
	}
	o.tell(o.c.Hosts[0], "tar tzf "+copyOf)
	// Another node than the one that made it gives it out too.
	o.tell(o.c.Hosts[2], `psctl swarm backup download "$(psctl swarm backup list --no-headers | awk '/before-upgrade/{print $1}')" -f - | tar tzf -`)
}

// spoil is the mistake after which somebody restores.
func (o *operator) spoil() {
	o.t.Helper()
	o.tell(o.c.Hosts[2], "psctl delete configmap greeting\npsctl create configmap later --from-literal=text=x\npsctl delete deployment web")
}

// restored: every node has again what was there, and only that; and it works.
func (o *operator) restored() {
	o.t.Helper()
	o.working()
	for _, h := range o.c.Hosts {
		eventually(o.t, 20*time.Second, func() error {
			out, err := o.shell(h, "psctl get configmaps -o custom-columns=N:.metadata.name,T:.data.text --no-headers")
			if err != nil || !slices.Contains(strings.Fields(out), "hello") || strings.Contains(out, "later") {
				return fmt.Errorf("%s has not what the backup holds, and only that: %w\n%s", h.Name, err, out)
			}
			return nil
		})
	}
}

// loseEverything takes all three machines away, with their disks. New ones are put in their places;
// what is left is the copy of the backup, and a kubeconfig that somebody has.
func (o *operator) loseEverything() {
	o.t.Helper()
	first := o.c.Hosts[0]
	saved, err := os.ReadFile(first.Outside(filepath.Join(home(first), copyOf)))
	check(o.t, err)
	_, dir := first.DataDir()
	kubeconfig, err := os.ReadFile(filepath.Join(dir, "admin.kubeconfig"))
	check(o.t, err)
	o.old = string(kubeconfig)
	check(o.t, o.c.Crash(o.t.Context(), o.c.Hosts...))
	check(o.t, o.c.Remove(o.t.Context()))
	check(o.t, o.c.Add(o.t.Context()))
	o.furnish()
	o.members = nil
	_, errOut, err := first.Run(o.t.Context(), string(saved), "sh", "-c", "cat >"+filepath.Join(home(first), copyOf))
	if err != nil {
		o.t.Fatalf("put the copy of the backup on the new machine: %v: %s", err, errOut)
	}
}

// regained: the swarm is there again, on all machines, and answers to a kubeconfig of before.
func (o *operator) regained() {
	o.t.Helper()
	if !strings.Contains(o.said, "Lineage:") || !strings.Contains(o.said, "from ") {
		o.t.Errorf("status does not say where the lineage came from:\n%s", o.said)
	}
	o.restored()
	first := o.c.Hosts[0]
	file := filepath.Join(home(first), "of-before")
	_, errOut, err := first.Run(o.t.Context(), o.old, "sh", "-c", "cat >"+file)
	if err != nil {
		o.t.Fatalf("put the kubeconfig of before on n1: %v: %s", err, errOut)
	}
	o.tell(first, "psctl --kubeconfig "+file+" get nodes")
}

// spread has every node run pods again: those that came last have none.
func (o *operator) spread() {
	o.t.Helper()
	o.tell(o.c.Hosts[0], "psctl rollout restart deployment web\npsctl rollout status deployment web --timeout 60s")
	o.working()
}

// rehearsed ends the hollow node that the document began, which works by then.
func (o *operator) rehearsed() {
	o.t.Helper()
	h := o.c.Hosts[0]
	eventually(o.t, time.Minute, func() error {
		out, err := o.shell(h, "psctl --kubeconfig /tmp/hollow/h1/admin.kubeconfig get node h1 --no-headers")
		if err == nil && !slices.Contains(strings.Fields(out), "Ready") {
			err = fmt.Errorf("h1 is not ready: %s", out)
		}
		return err
	})
	check(o.t, h.End(o.t.Context(), 15, h.Pids("--node-name h1")...))
	o.healthy()
}
