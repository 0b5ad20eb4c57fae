package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/backup"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// backups are files on each node; this node makes its own and knows of the others'. A backup is
// named NODE/FILE.
type backups struct {
	Config
	making sync.Mutex

	looking sync.Mutex
	seen    map[string]verified // by path

	ahead string // the newest backup that is dated in the future, for Run to warn of it once
}

// policyKey is where the policy of the whole swarm is kept.
const policyKey = "/swarm/backups/policy"

func defaultPolicy() swarm.BackupPolicy {
	return swarm.BackupPolicy{Every: swarm.Duration(time.Hour), Keep: 48}
}

// own lists the backups of this node.
func (b *backups) own() ([]swarm.Backup, error) {
	kept, err := backup.List(b.Backups)
	if err != nil {
		return nil, err
	}
	out := []swarm.Backup{}
	for _, k := range kept {
		one, err := b.describe(k)
		if err != nil {
			b.Log.Warn("a backup cannot be read", "err", err)
		}
		out = append(out, one)
	}
	return out, nil
}

// List implements swarm.Backups.
func (b *backups) List(ctx context.Context) (swarm.BackupList, error) {
	out := swarm.BackupList{List: swarm.List[swarm.Backup]{Items: []swarm.Backup{}}}
	out.Silent = peers.AskAll(ctx, b.Peers, "backups", "", func(_ peers.Member, theirs []swarm.Backup) { out.Items = append(out.Items, theirs...) })
	for _, m := range b.Peers.Members() {
		if !m.Alive() && !slices.Contains(out.Silent, m.Name) {
			out.Silent = append(out.Silent, m.Name)
		}
	}
	slices.Sort(out.Silent)
	slices.SortFunc(out.Items, func(x, y swarm.Backup) int {
		return cmp.Or(y.Created.Compare(x.Created), cmp.Compare(x.ID, y.ID))
	})
	return out, nil
}

// Create implements swarm.Backups.
func (b *backups) Create(ctx context.Context, req swarm.BackupRequest, say swarm.Progress) (swarm.Backup, error) {
	b.making.Lock()
	defer b.making.Unlock()
	say("writing state, keys and objects")
	st := b.Store.Status()
	path, err := backup.Create(ctx, b.Backups, backup.Source{
		Info: backup.Info{Cluster: b.Keys.Cluster(), Lineage: st.Lineage.ID, Node: b.Node, Release: b.Release, Reason: req.Reason},
		Snapshot: func(w io.Writer) (uint64, error) {
			revision := b.Store.Revision()
			return revision, b.Store.Export(w)
		},
		Keys:    func() ([]byte, error) { return b.Keys.Bundle(), nil },
		Objects: backup.Objects(b.REST),
	})
	if err != nil {
		return swarm.Backup{}, err
	}
	say("read back and compared: %s", path)
	k, err := b.find(filepath.Base(path))
	if err != nil {
		return swarm.Backup{}, err
	}
	return b.describe(k)
}

// describe says what a backup is. Reading it back whole is done once for each file.
func (b *backups) describe(k backup.Kept) (swarm.Backup, error) {
	out := swarm.Backup{ID: b.Node + "/" + k.Name, Node: b.Node, Path: k.Path, Created: k.Created, Size: k.Size}
	b.looking.Lock()
	defer b.looking.Unlock()
	seen, ok := b.seen[k.Path]
	if !ok || seen.size != k.Size {
		info, err := backup.Verify(k.Path)
		if err != nil {
			return out, err
		}
		info.Sums = nil // one for each object: nobody asks for them again
		seen = verified{info: info, size: k.Size, at: time.Now().UTC()}
		b.forget()
		b.seen[k.Path] = seen
	}
	out.Revision, out.Objects, out.Release, out.Reason, out.Verified = seen.info.Revision, seen.info.Objects, seen.info.Release, seen.info.Reason, seen.at
	return out, nil
}

// forget drops what is known of files that are gone, whoever removed them. The caller holds looking.
func (b *backups) forget() {
	maps.DeleteFunc(b.seen, func(path string, _ verified) bool {
		_, err := os.Stat(path)
		return errors.Is(err, os.ErrNotExist)
	})
}

// verified is a backup that was read back whole.
type verified struct {
	info backup.Info
	size int64
	at   time.Time
}

// place takes an ID apart: a name alone is of this node.
func (b *backups) place(id string) (node, name string) {
	node, name, ok := strings.Cut(id, "/")
	if !ok {
		return b.Node, id
	}
	return node, name
}

// find returns a backup of this node.
func (b *backups) find(name string) (backup.Kept, error) {
	kept, err := backup.List(b.Backups)
	if err != nil {
		return backup.Kept{}, err
	}
	i := slices.IndexFunc(kept, func(k backup.Kept) bool { return k.Name == name })
	if i < 0 {
		return backup.Kept{}, swarm.NotFound("there is no backup %q on node %s: see psctl swarm backup list", name, b.Node)
	}
	return kept[i], nil
}

// Open implements swarm.BackupFiles: the file may be another node's.
func (b *backups) Open(ctx context.Context, id string) (io.ReadCloser, int64, error) {
	node, name := b.place(id)
	if node == b.Node {
		return b.openOwn(ctx, name)
	}
	f, size, err := b.Peers.Fetch(ctx, node, name)
	if err != nil {
		return nil, 0, elsewhere(node, err)
	}
	return f, size, nil
}

func (b *backups) openOwn(_ context.Context, name string) (io.ReadCloser, int64, error) {
	k, err := b.find(name)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(k.Path)
	if err != nil {
		return nil, 0, err
	}
	return f, k.Size, nil
}

// Delete implements swarm.Backups.
func (b *backups) Delete(ctx context.Context, id string) error {
	node, name := b.place(id)
	if node == b.Node {
		return b.deleteOwn(name)
	}
	m, ok := b.Peers.Member(node)
	if !ok {
		return swarm.NotFound("there is no node %q with a backup %q", node, id)
	}
	if err := b.Peers.Ask(ctx, m.Addr, "delete-backup", name, &struct{}{}); err != nil {
		return elsewhere(node, err)
	}
	return nil
}

// elsewhere says why another node's backup cannot be had.
func elsewhere(node string, err error) error {
	var answer peers.AnswerError
	if errors.As(err, &answer) { // it says itself where it is missing
		return swarm.NotFound("%s", string(answer))
	}
	return swarm.Unavailable("node %s: %v", node, strings.TrimPrefix(err.Error(), "node "+node+": "))
}

func (b *backups) deleteOwn(name string) error {
	k, err := b.find(name)
	if err != nil {
		return err
	}
	err = os.Remove(k.Path)
	b.looking.Lock()
	defer b.looking.Unlock()
	b.forget()
	return err
}

// Policy implements swarm.Backups.
func (b *backups) Policy(context.Context) (swarm.BackupPolicy, error) { return b.policy(), nil }

func (b *backups) policy() swarm.BackupPolicy {
	p := defaultPolicy()
	if e, ok := b.Store.View().Get(policyKey); ok {
		var set swarm.BackupPolicy
		if json.Unmarshal(e.Value, &set) == nil && set.Keep > 0 {
			return set
		}
	}
	return p
}

// SetPolicy implements swarm.Backups.
func (b *backups) SetPolicy(ctx context.Context, p swarm.BackupPolicy) error {
	if p.Keep < 1 || p.Every < 0 || p.Every > 0 && time.Duration(p.Every) < time.Minute {
		return swarm.Invalid("a policy keeps at least 1 backup, made every 1m or more seldom (0: none by itself)")
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = b.Store.Apply(ctx, state.Write{Key: policyKey, Value: data, Expect: state.Any})
	return unavailable(err)
}

// policyPoll is how often it is looked whether a backup is due.
const policyPoll = time.Minute

// Run makes this node's backups by the policy until ctx ends. Nothing is written when nothing has
// changed since the last one.
func (b *backups) Run(ctx context.Context) error {
	b.clean()
	// Each is read back once now, so that whoever asks for the list later need not wait for that.
	if _, err := b.own(); err != nil {
		b.Log.Warn("backups", "err", err)
	}
	tick := time.NewTicker(policyPoll)
	defer tick.Stop()
	var last uint64
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if revision := b.Store.Revision(); revision != last && b.due(time.Now()) {
			if _, err := b.Create(ctx, swarm.BackupRequest{Reason: "by policy"}, func(string, ...any) {}); err != nil && ctx.Err() == nil {
				b.Log.Warn("backup", "err", err)
				continue
			}
			last = revision
			b.prune()
		}
	}
}

// clean removes what an agent that was killed has left half-written.
func (b *backups) clean() {
	b.making.Lock() // the API answers already, and somebody may have asked for a backup
	defer b.making.Unlock()
	if err := backup.Clean(b.Backups); err != nil {
		b.Log.Warn("remove unfinished backups", "err", err)
	}
}

// due tells whether the newest backup is older than the policy wants. One that is dated in the future
// says nothing about that.
func (b *backups) due(now time.Time) bool {
	every := time.Duration(b.policy().Every)
	kept, err := backup.List(b.Backups)
	if every == 0 || err != nil {
		return false
	}
	ahead := len(backup.Ahead(kept, now))
	if ahead > 0 && kept[0].Name != b.ahead {
		b.ahead = kept[0].Name
		b.Log.Warn("backups are dated in the future: the clock was ahead when they were made, or is behind now. They stay: delete them when the clock is right",
			"count", ahead, "newest", kept[0].Name)
	}
	kept = kept[ahead:]
	return len(kept) == 0 || now.Sub(kept[0].Created) >= every
}

// prune removes what the policy does not keep: the newest ones stay, and one of each of the last days.
func (b *backups) prune() {
	r := backup.DefaultRetention()
	r.Hours = b.policy().Keep
	if n, err := backup.Prune(b.Backups, r, time.Now()); err != nil {
		b.Log.Warn("remove old backups", "err", err)
	} else if n > 0 {
		b.Log.Debug("removed old backups", "count", n)
	}
	b.looking.Lock()
	defer b.looking.Unlock()
	b.forget()
}
