package sight

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
)

func TestSight(t *testing.T) {
	informer := cache.NewSharedIndexInformer(nil, &corev1.Node{}, 0, cache.Indexers{})
	for _, name := range []string{"n1", "n2", "n3", "n4"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if name == "n4" {
			n.Annotations = map[string]string{liveness.FencedAnnotation: "true"}
		}
		if err := informer.GetIndexer().Add(n); err != nil {
			t.Fatal(err)
		}
	}
	member := func(name, lineage string, s gossip.State) peers.Member {
		return peers.Member{Name: name, State: s, Meta: peers.Meta{Standing: state.Standing{Lineage: lineage}}}
	}
	born := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	forked := state.Lineage{ID: "b", Born: hlc.At(born), Parents: []ancestry.Ancestor{{ID: "a"}}}
	if until := Until(forked, 8); !until.Equal(born.Add(69800 * time.Millisecond)) { // 45 s + 8 x 0.6 s, and the clocks
		t.Errorf("eight nodes after a takeover: %v", until)
	}
	if Until(forked, 5) != (time.Time{}) || Until(state.Lineage{ID: "a", Born: hlc.At(born)}, 8) != (time.Time{}) {
		t.Error("where all vote, and where nothing was taken over, nobody waits")
	}
	for name, c := range map[string]struct {
		members []peers.Member
		status  state.Status
		want    fence.Sight
	}{
		"one is dead, one is dead and fenced": {
			[]peers.Member{member("n1", "a", gossip.Alive), member("n2", "a", gossip.Alive), member("n3", "a", gossip.Dead), member("n4", "a", gossip.Dead)},
			state.Status{Leader: "n1"},
			fence.Sight{Known: 3, Alive: 2, Settled: true},
		},
		"fenced, but alive": {
			[]peers.Member{member("n1", "a", gossip.Alive), member("n4", "a", gossip.Alive)},
			state.Status{Leader: "n1"},
			fence.Sight{Known: 4, Alive: 2, Settled: true},
		},
		"two histories": {
			[]peers.Member{member("n1", "a", gossip.Alive), member("n2", "b", gossip.Alive)},
			state.Status{Leader: "n1"},
			fence.Sight{Known: 3, Alive: 2, Torn: true},
		},
		"the other history is that of the dead": {
			[]peers.Member{member("n1", "a", gossip.Alive), member("n2", "b", gossip.Dead)},
			state.Status{Leader: "n1"},
			fence.Sight{Known: 3, Alive: 1, Settled: true},
		},
		"nobody leads": {
			[]peers.Member{member("n1", "a", gossip.Alive)}, state.Status{}, fence.Sight{Known: 3, Alive: 1},
		},
		"catching up": {
			[]peers.Member{member("n1", "a", gossip.Alive)}, state.Status{Leader: "n2", Joining: true}, fence.Sight{Known: 3, Alive: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{
				Nodes: informer, Members: func() []peers.Member { return c.members },
				Status: func() state.Status { return c.status },
			})
			if got := s.Sight(); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}
