package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/profile"

	"github.com/podman-swarm/podman-swarm/internal/tap"
)

// parallelism is how many nodes are looked at concurrently for one pod. Upstream's 16 are for
// thousands of nodes; with 50 and few cores more than this only costs goroutines.
const parallelism = 4

// quiet is how much upstream's messages are lowered: what they call information is ours at debug
// level. Errors stay errors.
const quiet = 4

// Config is what the scheduler needs.
type Config struct {
	// REST reaches the API server of this very node as a member of system:masters; the scheduler
	// impersonates system:kube-scheduler.
	REST *rest.Config
	// Informers are the process's.
	Informers *tap.Source
	// Log receives what the scheduler has to say.
	Log *slog.Logger
	// Started, if not nil, is closed when the scheduler has seen every pod and node and begins.
	Started chan<- struct{}
}

// Run schedules pods until ctx ends. It returns nil then, or an error if the scheduler could not be
// built. A binding under way when ctx ends may be lost; the pod is then still unbound.
func Run(ctx context.Context, c Config) error {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(c.Log.With("part", "schedule").Handler()).V(quiet))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	tapped := c.Informers.Open()
	err := run(ctx, c, tapped)
	cancel()
	return errors.Join(err, tapped.Close())
}

func run(ctx context.Context, c Config, tapped *tap.Tap) error {
	config := clientConfig(c.REST)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	recorder := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer recorder.Shutdown()
	// No dynamic informers: no plugin of the default profile asks to hear of a kind that is not built in.
	s, err := scheduler.New(ctx, client, tapped, nil, profile.NewRecorderFactory(recorder),
		scheduler.WithKubeConfig(config), scheduler.WithParallelism(parallelism))
	if err != nil {
		return fmt.Errorf("build scheduler: %w", err)
	}
	if err := recorder.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	tapped.Start(ctx.Done())
	tapped.WaitForCacheSync(ctx.Done())
	if err := s.WaitForHandlersSync(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("hear of all pods and nodes: %w", err)
	}
	if c.Started != nil {
		close(c.Started)
	}
	s.Run(ctx)
	return nil
}

// clientConfig makes the process's configuration the scheduler's: its own user, as on any upstream
// cluster, whose rights are those of the cluster role system:kube-scheduler.
func clientConfig(base *rest.Config) *rest.Config {
	config := rest.CopyConfig(base)
	// The part before the slash becomes the manager of the fields the scheduler sets.
	config.UserAgent = "kube-scheduler/podman-swarm"
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:kube-scheduler"}
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	// The server is in this process: whoever is throttled here waits for nobody's good.
	config.QPS, config.RateLimiter = -1, nil
	return config
}
