package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

const (
	// lookEvery is how often the machine's memory, disk and tasks are looked at.
	lookEvery = 30 * time.Second
	// pingTimeout is how long Podman may take to say that it is there.
	pingTimeout = 10 * time.Second
	// callTimeout bounds one call to the API server.
	callTimeout = 30 * time.Second
	// redial is how often an absent Podman is asked for.
	redial = time.Second
)

// KeeperConfig is what a Keeper needs.
type KeeperConfig struct {
	Description Description // what never changes
	DataDir     string
	Client      kubernetes.Interface
	Ping        func(ctx context.Context) error
	// Socket is the libpod socket of a service that is always there, "" for one that comes and goes.
	Socket string
	// Booted: nothing ran on this machine since it booted; Boot names that boot.
	Booted bool
	Boot   string
	// Event is called for events of the node.
	Event func(kind, reason, message string)
	// Recovered is called when Podman answers again, before the node is told ready.
	Recovered func(ctx context.Context)
	Now       func() time.Time
	Log       *slog.Logger
}

// Keeper keeps the Node object true. It is written when something changes, never to show life.
type Keeper struct {
	cfg    KeeperConfig
	wake   chan struct{}
	doubts chan struct{}

	mu    sync.Mutex
	seen  *corev1.Node // the newest version that somebody else may have written; nil: none
	gone  *corev1.Node // what was deleted since; nil: nothing
	facts Facts
	info  podman.Info
	away  error // why Podman cannot be used

	// What follows is only used by the publishing goroutine of Run.
	told    *corev1.Node // the object as we know it; nil: it is to be made, but not before absent
	absent  time.Time
	greeted bool // the events of a start were written
}

// NewKeeper returns a Keeper.
func NewKeeper(cfg KeeperConfig) *Keeper {
	n := &Keeper{cfg: cfg, wake: make(chan struct{}, 1), doubts: make(chan struct{}, 1)}
	if f, err := Read(cfg.DataDir, cfg.DataDir); err == nil {
		n.facts = f
	}
	return n
}

// Learn takes over what Podman tells of the host.
func (n *Keeper) Learn(info podman.Info) {
	n.mu.Lock()
	n.info = info
	n.mu.Unlock()
	nudge(n.wake)
}

// Doubt asks for a check whether Podman is there.
func (n *Keeper) Doubt() { nudge(n.doubts) }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (n *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watchPodman(ctx) })
	g.Go(func() error { return n.watchNode(ctx) })
	g.Go(func() error {
		delay := redial
		for {
			wait := lookEvery
			if err := n.publish(ctx); err != nil && ctx.Err() == nil {
				n.cfg.Log.Warn("write node", "err", err)
				wait, delay = delay, min(2*delay, lookEvery)
			} else {
				delay = redial
			}
			t := time.NewTimer(wait)
			select {
			case <-n.wake:
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
			t.Stop()
		}
	})
	return g.Wait()
}

// watchPodman learns at once when a permanent service goes: a connection to it is held open, which
// costs nothing. A service that comes on demand is only asked when a call to it failed.
func (n *Keeper) watchPodman(ctx context.Context) error {
	for {
		err := n.ping(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.set(ctx, err)
		if err != nil {
			t := time.NewTimer(redial)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
			continue
		}
		lost, release := n.hold(ctx)
		select {
		case <-lost:
		case <-n.doubts:
		case <-ctx.Done():
		}
		release()
	}
}

func (n *Keeper) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return n.cfg.Ping(ctx)
}

// set notes whether Podman is there.
func (n *Keeper) set(ctx context.Context, away error) {
	n.mu.Lock()
	was := n.away
	n.away = away
	n.mu.Unlock()
	switch {
	case was == nil && away != nil:
		n.cfg.Log.Error("podman is not reachable", "err", away)
		n.cfg.Event(corev1.EventTypeWarning, "NodeNotReady", "Podman is not reachable: "+away.Error())
	case was != nil && away == nil:
		n.cfg.Log.Info("podman is reachable again")
		n.cfg.Event(corev1.EventTypeNormal, "NodeReady", "Podman is reachable again")
		n.cfg.Recovered(ctx)
	case was == nil || was.Error() == away.Error():
		return
	}
	nudge(n.wake)
}

// hold connects to a permanent service; lost is closed when the other end goes away. It is nil, and
// never ready, for one that comes on demand: there a connection would keep it from leaving.
func (n *Keeper) hold(ctx context.Context) (lost <-chan struct{}, release func()) {
	none := func() {}
	if n.cfg.Socket == "" {
		return nil, none
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", n.cfg.Socket)
	if err != nil {
		n.Doubt()
		return nil, none
	}
	if activated(conn) {
		_ = conn.Close()
		return nil, none
	}
	c := make(chan struct{})
	go func() {
		defer close(c)
		_, _ = conn.Read(make([]byte, 1))
	}()
	return c, func() {
		_ = conn.Close()
		<-c
	}
}

// activated reports whether systemd listens in the service's place.
func activated(conn net.Conn) bool {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) //nolint:gosec // a descriptor
	}); err != nil || cred == nil {
		return false
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid))
	return err == nil && strings.TrimSpace(string(comm)) == "systemd"
}

// describe gathers what the object says.
func (n *Keeper) describe() Description {
	n.mu.Lock()
	defer n.mu.Unlock()
	root := n.info.GraphRoot
	if root == "" {
		root = n.cfg.DataDir
	}
	if f, err := Read(n.cfg.DataDir, root); err == nil {
		// The size of disk and memory is told once: a number that wavers is a write every time.
		if n.facts.Disk != 0 {
			f.Disk, f.Memory = n.facts.Disk, n.facts.Memory
		}
		n.facts = f
	}
	d := n.cfg.Description
	d.Facts, d.Podman, d.PodmanError, d.Now = n.facts, n.info, n.away, n.cfg.Now()
	return d
}

// publish writes the object if it says anything new.
func (n *Keeper) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n.catchUp()
	if n.told == nil {
		if n.cfg.Now().Before(n.absent) {
			return nil
		}
		if err := n.enroll(ctx); err != nil {
			return err
		}
	}
	return n.publishStatus(ctx)
}

func (n *Keeper) publishStatus(ctx context.Context) error {
	d := n.describe()
	next := n.told.DeepCopy()
	want := Node(d, n.told.Status.Conditions).Status
	foreign := next.Status.Conditions[:0:0]
	for _, c := range next.Status.Conditions {
		if !ownCondition(want.Conditions, c.Type) {
			foreign = append(foreign, c)
		}
	}
	next.Status.Conditions = append(foreign, want.Conditions...)
	next.Status.Capacity, next.Status.Allocatable = want.Capacity, want.Allocatable
	next.Status.Addresses, next.Status.NodeInfo = want.Addresses, want.NodeInfo
	next.Status.DaemonEndpoints = want.DaemonEndpoints
	if apiequality.Semantic.DeepEqual(n.told.Status, next.Status) {
		return nil
	}
	before, err := json.Marshal(corev1.Node{Status: n.told.Status})
	if err != nil {
		return fmt.Errorf("encode node: %w", err)
	}
	after, err := json.Marshal(corev1.Node{Status: next.Status})
	if err != nil {
		return fmt.Errorf("encode node: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Node{})
	if err != nil {
		return fmt.Errorf("compare node: %w", err)
	}
	got, err := n.cfg.Client.CoreV1().Nodes().Patch(ctx, next.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		n.forget(n.told) // somebody deleted it; the next try makes it anew
	}
	if err != nil {
		return fmt.Errorf("write node status: %w", err)
	}
	n.announce(got)
	n.told = got
	return nil
}

func ownCondition(own []corev1.NodeCondition, t corev1.NodeConditionType) bool {
	for i := range own {
		if own[i].Type == t {
			return true
		}
	}
	return false
}

// announce writes an event for what this host turns out not to be able to do.
func (n *Keeper) announce(now *corev1.Node) {
	for _, c := range now.Status.Conditions {
		if c.Type != PodResourceLimits && c.Type != PrivilegedHostPorts || c.Status != corev1.ConditionFalse {
			continue
		}
		known := false
		for _, o := range n.told.Status.Conditions {
			known = known || o.Type == c.Type && o.Status == c.Status
		}
		if !known {
			n.cfg.Event(corev1.EventTypeWarning, string(c.Type), c.Message)
		}
	}
}

// Allocatable is what pods may use of this node.
func (n *Keeper) Allocatable() corev1.ResourceList {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.cfg.Description
	d.Facts = n.facts
	return Allocatable(d)
}
