package netd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// closeTimeout is how long Close waits for the helper to finish what it is at.
const closeTimeout = 10 * time.Second

// Net is the agent's side of the pod network. All methods may be called at the same time.
type Net struct {
	cfg    Config
	frames *wire.Frames
	dead   chan struct{} // closed by read at its end

	sysctls map[string]string

	mu      sync.Mutex
	seq     uint64
	waiting map[uint64]chan<- answer
}

// answer is a reply and the descriptor that came with it or -1; whoever receives it owns that.
type answer struct {
	wire.Reply
	fd int
}

// Start launches the helper and brings the pod network up, adopting the pods of an earlier one and
// removing what is only half there. It fails with one line for each program that is missing.
func Start(ctx context.Context, cfg Config) (*Net, error) {
	n, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := n.cfg.setup()
	got, err := n.call(ctx, wire.Request{Op: wire.OpStart, Setup: &s})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("start the pod network: %w", err)
	}
	n.sysctls = got.Sysctls
	return n, nil
}

// Destroy removes every trace of the pod network from this host: devices, rules, namespaces,
// processes and files. No Net of this configuration may be open. Nothing there is fine.
func Destroy(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	if _, err := os.Stat(cfg.setup().Dir()); errors.Is(err, os.ErrNotExist) {
		if _, noOutlet := os.Stat(cfg.setup().File("outlet")); cfg.Rootless && noOutlet != nil {
			return nil
		}
	}
	n, err := dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	s := cfg.setup()
	if _, err := n.call(ctx, wire.Request{Op: wire.OpDestroy, Setup: &s}); err != nil {
		return fmt.Errorf("remove the pod network: %w", err)
	}
	return nil
}

// dial launches a helper and speaks with it.
func dial(ctx context.Context, cfg Config) (*Net, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := Missing(cfg.Rootless); err != nil {
		return nil, err
	}
	f, err := launch(ctx, cfg)
	if err != nil {
		return nil, err
	}
	n := &Net{cfg: cfg, frames: f, dead: make(chan struct{}), waiting: make(map[uint64]chan<- answer)}
	go n.read(context.WithoutCancel(ctx)) // it ends with the connection
	return n, nil
}

// Close ends the helper. The network itself, its pods and their connections stay.
func (n *Net) Close() {
	_ = n.frames.CloseWrite()
	select {
	case <-n.dead:
	case <-time.After(closeTimeout):
	}
	_ = n.frames.Close()
	<-n.dead
}

// Dead is closed when the helper is gone. Pods are not affected; Start again adopts them.
func (n *Net) Dead() <-chan struct{} { return n.dead }

// Gateway is the node's own address in the pod network.
func (n *Net) Gateway() netip.Addr { return n.cfg.setup().Gateway() }

// Sysctls is what pods' namespaces are set to, by name. Every container must be created with these
// too: Podman sets net.ipv4.ping_group_range back to "0 0" whenever it starts one without.
func (n *Net) Sysctls() map[string]string { return maps.Clone(n.sysctls) }

// Add attaches the pod id, a UID, and returns its place. One that is attached keeps its address.
// The error is ErrExhausted when the range is full.
func (n *Net) Add(ctx context.Context, id string) (Attachment, error) {
	if err := wire.CheckID(id); err != nil {
		return Attachment{}, err
	}
	got, err := n.call(ctx, wire.Request{Op: wire.OpAdd, ID: id})
	if err != nil {
		return Attachment{}, err
	}
	if len(got.Pods) != 1 || got.Pods[0].ID != id {
		return Attachment{}, fmt.Errorf("attach pod %s: unexpected answer of the network helper", id)
	}
	return n.attachment(got.Pods[0]), nil
}

// Remove detaches a pod. One that is not attached is fine.
func (n *Net) Remove(ctx context.Context, id string) error {
	if err := wire.CheckID(id); err != nil {
		return err
	}
	_, err := n.call(ctx, wire.Request{Op: wire.OpRemove, ID: id})
	return err
}

// List returns what is attached, in the order of ids.
func (n *Net) List(ctx context.Context) ([]Attachment, error) {
	var all []Attachment
	for after, more := "", true; more; {
		got, err := n.call(ctx, wire.Request{Op: wire.OpList, After: after})
		if err != nil {
			return nil, fmt.Errorf("list pods of the network: %w", err)
		}
		for _, p := range got.Pods {
			all, after = append(all, n.attachment(p)), p.ID
		}
		more = got.More && len(got.Pods) > 0
	}
	return all, nil
}

func (n *Net) attachment(p wire.PodRef) Attachment {
	return Attachment{ID: p.ID, NetNS: n.cfg.setup().Path(p.ID), IP: p.IP}
}

// call sends a request and waits for its reply, which must bring no descriptor.
func (n *Net) call(ctx context.Context, r wire.Request) (wire.Reply, error) {
	got, err := n.exchange(ctx, r)
	wire.CloseFD(got.fd)
	return got.Reply, err
}

// exchange sends a request and waits for its answer. The descriptor in it is the caller's; it is
// -1 when there is an error.
func (n *Net) exchange(ctx context.Context, r wire.Request) (answer, error) {
	none := answer{fd: -1}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	ready := make(chan answer, 1)
	n.mu.Lock()
	n.seq++
	r.Seq = n.seq
	n.waiting[r.Seq] = ready
	n.mu.Unlock()
	if err := n.frames.Send(r, -1); err != nil {
		n.forget(r.Seq, ready)
		return none, errors.Join(ErrLost, err)
	}
	select {
	case got := <-ready:
		if err := got.AsError(); err != nil {
			wire.CloseFD(got.fd)
			return none, err
		}
		return got, nil
	case <-ctx.Done():
		n.forget(r.Seq, ready)
		return none, ctx.Err()
	case <-n.dead:
		n.forget(r.Seq, ready)
		return none, n.lost()
	}
}

// forget gives an answer up that may be there already.
func (n *Net) forget(seq uint64, ready <-chan answer) {
	n.mu.Lock()
	delete(n.waiting, seq)
	n.mu.Unlock()
	select {
	case late := <-ready:
		wire.CloseFD(late.fd)
	default:
	}
}

// lost is ErrLost with the helper's last words.
func (n *Net) lost() error {
	words, err := os.ReadFile(filepath.Clean(wire.LogFile(n.cfg.RunDir)))
	if err != nil || len(words) == 0 {
		return ErrLost
	}
	return fmt.Errorf("%w: %s", ErrLost, lastLines(words))
}

// read hands answers to those who wait for them, until the helper is gone.
func (n *Net) read(ctx context.Context) {
	defer close(n.dead)
	for {
		b, fd, err := n.frames.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				n.cfg.Log.Warn("network helper lost", "err", err)
			}
			return
		}
		r, err := wire.DecodeReply(b)
		if err != nil {
			wire.CloseFD(fd)
			n.cfg.Log.Error("network helper speaks another language", "err", err)
			// Nobody can tell what the rest would mean. The helper ends when it sees this.
			_ = n.frames.CloseWrite()
			return
		}
		if r.Log != nil {
			n.log(ctx, r.Log)
		}
		n.deliver(answer{r, fd})
	}
}

func (n *Net) deliver(a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ready, ok := n.waiting[a.Seq]
	delete(n.waiting, a.Seq)
	if !ok {
		wire.CloseFD(a.fd)
		return
	}
	ready <- a // has room for one, and gets one
}

func (n *Net) log(ctx context.Context, l *wire.LogLine) {
	attrs := []slog.Attr{slog.String("says", l.Text)}
	if l.Err != "" {
		attrs = append(attrs, slog.String("err", l.Err))
	}
	n.cfg.Log.LogAttrs(ctx, l.Level, "network helper", attrs...)
}
