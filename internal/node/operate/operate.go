package operate

import (
	"context"
	"encoding/hex"
	"log/slog"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/drill"
	"github.com/podman-swarm/podman-swarm/internal/node/operate/overwrite"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Config is what the operations work on.
type Config struct {
	Node string // this one
	// Addr is this node's address for other nodes: newcomers are told it.
	Addr   string
	Freeze bool // --on-quorum-loss=freeze
	Store  *state.Store
	Peers  *peers.Peers
	Keys   *pki.Authority
	Cert   *pki.NodeCert
	Tokens *join.Tokens
	// REST reaches the API of this process as a member of system:masters, Client is for it.
	REST    *rest.Config
	Client  kubernetes.Interface
	Backups string // directory
	Release string
	// CAGrace is how long a replaced certificate authority is believed when the new one is in use everywhere.
	CAGrace time.Duration
	// Left is called when this node has left the swarm: its agent is to end.
	Left func() error
	// PlayDead has this node's agent die after delay, for a drill, and start again after pause. It returns
	// at once; failed is called when the agent could not die.
	PlayDead func(delay, pause time.Duration, failed func(error)) error
	Log      *slog.Logger
}

// New returns the backend of /swarm/v1 and what must run beside it, and has this node answer other
// nodes' questions.
func New(cfg Config) (b swarm.Backend, run func(context.Context) error) {
	told := &overwrite.Derived{}
	kept := &backups{Config: cfg, seen: map[string]verified{}}
	rehearsed := drill.New(drill.Config{
		Node: cfg.Node, Freeze: cfg.Freeze, Store: cfg.Store, Peers: cfg.Peers, Client: cfg.Client,
		Members: reader{cfg, told}.Members, PlayDead: cfg.PlayDead, Log: cfg.Log,
	})
	cfg.Peers.AnswerQuestions(peers.Answers{
		"words":         func(context.Context, string) (any, error) { return words(cfg), nil },
		"backups":       func(context.Context, string) (any, error) { return kept.own() },
		"delete-backup": func(_ context.Context, name string) (any, error) { return struct{}{}, kept.deleteOwn(name) },
		drill.Question:  rehearsed.Obey,
	})
	cfg.Peers.AnswerFetches(kept.openOwn)
	b = swarm.Backend{
		Reader: reader{cfg, told}, Tokens: tokens{cfg}, Conflicts: conflicts{cfg.Store, told}, Nodes: nodes{cfg, emptyTimeout}, Keys: keys{cfg, phaseTimeout},
		Backups: kept, Files: kept, Drills: rehearsed,
	}
	return b, func(ctx context.Context) error {
		defer rehearsed.End()
		return kept.Run(ctx)
	}
}

func words(cfg Config) peers.Words {
	st := cfg.Store.Status()
	return peers.Words{
		Node: cfg.Node, Index: st.Index, Revision: st.Revision, Keys: cfg.Keys.Generation(),
		Issuer: hex.EncodeToString(cfg.Cert.Certificate().Leaf.AuthorityKeyId),
	}
}
