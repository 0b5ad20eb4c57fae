package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// kubeVersion is what user agents name: probes look to servers like those of the kubelet we stand for.
	kubeVersion = "1.37"
	// maxOutput bounds what is read of a response or of a command's output.
	maxOutput = 10 << 10
	// maxRetries is how often a probe that could not be made is tried.
	maxRetries = 3
	// minTimeout guards against objects that were not defaulted.
	minTimeout = time.Second
)

// Prober makes single probes and runs lifecycle hooks. Safe for concurrent use.
type Prober struct {
	cfg   Config
	http1 *http.Transport
	h2c   *http.Transport
	hooks *http.Transport
}

// New returns a Prober.
func New(cfg Config) *Prober {
	p := &Prober{cfg: cfg}
	transport := func() *http.Transport {
		return &http.Transport{
			DialContext:        p.dial,
			DisableKeepAlives:  true, // a probe asks whether a new connection works
			DisableCompression: true, // no Accept-Encoding header
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		}
	}
	p.http1, p.h2c, p.hooks = transport(), transport(), transport()
	p.http1.ForceAttemptHTTP2 = true
	p.h2c.TLSClientConfig = nil
	p.h2c.Protocols = new(http.Protocols)
	p.h2c.Protocols.SetUnencryptedHTTP2(true)
	return p
}

// dial connects by the injected dialer and shortens the TIME-WAIT of the many connections of probes to
// one second. Zero would reset connections with data under way.
func (p *Prober) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := p.cfg.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if l, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(1) // an optimization only
	}
	return conn, nil
}

// Probe asks once, within the probe's timeout. The string is the output for events. An error means that
// no probe could be made (unknown port name, container gone); it says nothing of the container.
func (p *Prober) Probe(ctx context.Context, t Target, spec *corev1.Probe) (Result, string, error) {
	var (
		result Result
		out    string
		err    error
	)
	for range maxRetries {
		result, out, err = p.once(ctx, t, spec)
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return result, out, err
}

func (p *Prober) once(ctx context.Context, t Target, spec *corev1.Probe) (Result, string, error) {
	timeout := max(time.Duration(spec.TimeoutSeconds)*time.Second, minTimeout)
	switch {
	case spec.Exec != nil:
		return p.exec(ctx, t, expandCommand(spec.Exec.Command, t.Container.Env), timeout)
	case spec.HTTPGet != nil:
		return p.httpGet(ctx, t, spec.HTTPGet, timeout)
	case spec.TCPSocket != nil:
		return p.tcpSocket(ctx, t, spec.TCPSocket, timeout)
	case spec.GRPC != nil:
		return p.grpc(ctx, t, spec.GRPC, timeout)
	default:
		return Unknown, "", fmt.Errorf("missing probe handler for %s:%s", podText(t.Pod), t.Container.Name)
	}
}

func (p *Prober) exec(ctx context.Context, t Target, cmd []string, timeout time.Duration) (Result, string, error) {
	deadline, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	code, out, err := p.cfg.Exec(deadline, t.ContainerID, cmd)
	switch {
	case deadline.Err() != nil && ctx.Err() == nil && err != nil:
		return Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout), nil
	case err != nil:
		return Unknown, "", err
	case code != 0:
		return Failure, cut(out), nil
	}
	return Success, cut(out), nil
}

func (p *Prober) tcpSocket(ctx context.Context, t Target, a *corev1.TCPSocketAction, timeout time.Duration,
) (Result, string, error) {
	port, err := resolvePort(a.Port, t.Container)
	if err != nil {
		return Unknown, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	host := a.Host
	if host == "" {
		host = t.PodIP
	}
	conn, err := p.dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return Failure, err.Error(), nil // no connection is an answer
	}
	_ = conn.Close() // it was opened: that is the answer
	return Success, "", nil
}

// resolvePort finds a port by number or by the name the container gives it.
func resolvePort(port intstr.IntOrString, c *corev1.Container) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		n = 0
		found := false
		for _, cp := range c.Ports {
			if cp.Name == port.StrVal {
				n, found = int(cp.ContainerPort), true
				break
			}
		}
		if !found {
			return 0, fmt.Errorf("port %q not found", port.StrVal)
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", n)
	}
	return n, nil
}

// podText names a pod as kubelet messages do.
func podText(pod *corev1.Pod) string {
	if pod == nil {
		return "<nil>"
	}
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

func cut(out []byte) string {
	return string(out[:min(len(out), maxOutput)])
}

// Hook runs a postStart or preStop handler until it ends or ctx does. With an error comes the message
// for the log; events say only "PostStartHook failed" / "PreStopHook failed", as upstream, so that
// nothing secret leaks.
func (p *Prober) Hook(ctx context.Context, t Target, h *corev1.LifecycleHandler) (msg string, err error) {
	where := fmt.Sprintf("for Container %q in Pod %q failed - error:", t.Container.Name, podText(t.Pod))
	switch {
	case h.Exec != nil:
		code, out, err := p.cfg.Exec(ctx, t.ContainerID, h.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), code, cut(out))
		}
		if err != nil {
			msg = fmt.Sprintf("Exec lifecycle hook (%v) %s %v, message: %q", h.Exec.Command, where, err, cut(out))
		}
		return msg, err
	case h.HTTPGet != nil:
		if err := p.hookHTTP(ctx, t, h.HTTPGet); err != nil {
			return fmt.Sprintf("HTTP lifecycle hook (%s) %s %v", h.HTTPGet.Path, where, err), err
		}
		return "", nil
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return "", nil
		case <-ctx.Done():
			err := errors.New("container terminated before sleep hook finished")
			return fmt.Sprintf("Sleep lifecycle hook (%d) %s %v", h.Sleep.Seconds, where, err), err
		}
	default:
		err := fmt.Errorf("invalid handler: %v", h)
		return fmt.Sprintf("Cannot run handler: %v", err), err
	}
}

// KillMessage is the message of upstream's Killing event for a container that failed its liveness or
// startup probe; restart is whether it comes back.
func KillMessage(container string, k Kind, restart bool) string {
	msg := fmt.Sprintf("Container %s failed %s probe", container, strings.ToLower(k.String()))
	if restart {
		msg += ", will be restarted"
	}
	return msg
}
