package overwrite

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/internal/node/stored"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// news is how old a conflict may be that is still told: a leader looks back so far when it begins.
const news = 10 * time.Minute

// Config is where overwrites are looked for, and told.
type Config struct {
	Node   string // this one
	Store  *state.Store
	Client kubernetes.Interface
	Log    *slog.Logger
}

// Announce raises an Event on the object for every overwrite of somebody's work that a merge journals, until ctx ends.
// It is for the leader.
func Announce(ctx context.Context, cfg Config) error {
	told := &Derived{}
	for ctx.Err() == nil {
		// The watch first: what comes while the journal is read is seen twice, and told once.
		w, err := cfg.Store.WatchPrefix(journal.Prefix, cfg.Store.Revision())
		if err == nil {
			err = announce(ctx, cfg, w, told)
			w.Close()
		}
		// A merge ends every watch, and what it journaled is there.
		if ctx.Err() == nil {
			cfg.Log.Debug("read the journal again", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

func announce(ctx context.Context, cfg Config, w *state.Watch, told *Derived) error {
	for {
		for c, err := range machine.Conflicts(cfg.Store.View()) {
			if err != nil {
				return err
			}
			if time.Since(time.Unix(c.At, 0)) > news || told.Is(c) {
				continue
			}
			if err := tell(ctx, cfg, c); err != nil && !apierrors.IsAlreadyExists(err) {
				cfg.Log.Warn("tell of an overwrite", "key", c.Key, "err", err)
			}
		}
		if _, _, err := w.Next(ctx, nil); err != nil {
			return err
		}
	}
}

// tell writes the Event. Its name is the conflict's, so that it is told once.
func tell(ctx context.Context, cfg Config, c *journal.Conflict) error {
	shown := Describe(c)
	namespace := shown.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // as upstream does for what has none
	}
	now := metav1.Now()
	_, err := cfg.Client.CoreV1().Events(namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: "overwritten." + c.ID},
		InvolvedObject: reference(c, shown),
		Type:           corev1.EventTypeWarning, Reason: "Overwritten",
		Message: outcome(c) + ": psctl swarm conflicts show " + c.ID,
		Source:  corev1.EventSource{Component: "podman-swarm", Host: cfg.Node}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	return err
}

// outcome says which side won.
func outcome(c *journal.Conflict) string {
	if c.Lost.Stamp > c.Kept.Stamp {
		return "a side of a partition that did not see this changed it, and what the other one knew of it won"
	}
	return "both sides of a partition changed this, and the newer write won"
}

func reference(c *journal.Conflict, shown swarm.Conflict) corev1.ObjectReference {
	ref := corev1.ObjectReference{Kind: shown.Resource, Namespace: shown.Namespace, Name: shown.Name}
	for _, side := range []journal.Side{c.Kept, c.Lost} {
		if obj := stored.Object(side.Value); obj != nil {
			ref.APIVersion, ref.Kind = obj.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
			if m, err := meta.Accessor(obj); err == nil {
				ref.UID = m.GetUID()
			}
			break
		}
	}
	if ref.Kind == "" {
		ref.Kind = "Unknown" // an Event must name a kind
	}
	return ref
}
