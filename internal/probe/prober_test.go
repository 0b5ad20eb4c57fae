package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newProber(t *testing.T) *Prober {
	t.Helper()
	return New(Config{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
		Exec: func(_ context.Context, _ string, cmd []string) (int, []byte, error) {
			if cmd[0] == "gone" {
				return 0, nil, errors.New("no such container")
			}
			code, err := strconv.Atoi(cmd[0])
			return code, []byte(strings.Join(cmd, " ")), err
		},
		Log: slog.New(slog.DiscardHandler),
	})
}

// at makes a target whose address and named port "web" are a server's.
func at(addr string) Target {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	tg := target("id", corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(n)}}})
	tg.PodIP = host
	return tg
}

func TestHTTP(t *testing.T) {
	var got *http.Request
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { got = r; _, _ = w.Write([]byte("fine")) })
	mux.HandleFunc("/399", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(399) })
	mux.HandleFunc("/400", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400); _, _ = w.Write([]byte("secret")) })
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	tlsSrv := httptest.NewTLSServer(mux)
	defer tlsSrv.Close()
	p := newProber(t)
	for _, c := range []struct {
		path   string
		scheme corev1.URIScheme
		want   Result
		out    string
	}{
		{"/ok", "HTTP", Success, "fine"},
		{"/ok", "HTTPS", Success, "fine"},
		{"/here", "HTTP", Success, "fine"},
		{"/399", "HTTP", Warning, "Probe terminated redirects, Response body: "},
		{"/400", "HTTP", Failure, "HTTP probe failed with statuscode: 400"},
		{"/away", "HTTP", Warning, "Probe terminated redirects, Response body: <a href=\"http://elsewhere.invalid/\">Found</a>.\n\n"},
		{"/loop", "HTTP", Failure, `Get "/loop": stopped after 10 redirects`},
	} {
		addr := srv.Listener.Addr().String()
		if c.scheme == "HTTPS" {
			addr = tlsSrv.Listener.Addr().String()
		}
		r, out, err := p.Probe(t.Context(), at(addr), &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: c.path, Port: intstr.FromString("web"), Scheme: c.scheme},
		}})
		if r != c.want || out != c.out || err != nil {
			t.Errorf("%s %s: got %s %q %v, want %s %q", c.scheme, c.path, r, out, err, c.want, c.out)
		}
	}
	if ua := got.Header.Get("User-Agent"); ua != "kube-probe/1.37" {
		t.Errorf("user agent %q", ua)
	}
	if _, ok := got.Header["Accept-Encoding"]; ok {
		t.Error("Accept-Encoding was sent")
	}
	_, out, _ := p.Probe(t.Context(), at(srv.Listener.Addr().String()), &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/big", Port: intstr.FromString("web")},
	}})
	if len(out) != maxOutput {
		t.Errorf("read %d bytes of body, want %d", len(out), maxOutput)
	}
}

func TestHTTPHeaders(t *testing.T) {
	tg := at("10.1.2.3:80")
	for name, c := range map[string]struct {
		in   []corev1.HTTPHeader
		want http.Header
		host string
	}{
		"defaults": {nil, http.Header{"User-Agent": {"kube-probe/1.37"}, "Accept": {"*/*"}}, ""},
		"overridden": {
			[]corev1.HTTPHeader{{Name: "User-Agent", Value: "me"}, {Name: "accept", Value: ""}, {Name: "Host", Value: "h.example"}, {Name: "X", Value: "1"}, {Name: "X", Value: "2"}},
			http.Header{"User-Agent": {"me"}, "Host": {"h.example"}, "X": {"1", "2"}},
			"h.example",
		},
	} {
		req, err := newRequest(t.Context(), tg, &corev1.HTTPGetAction{Path: "/a?b=c", Port: intstr.FromInt32(8080), HTTPHeaders: c.in}, "probe")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, req.Header); d != "" || req.Host != c.host || req.URL.String() != "http://10.1.2.3:8080/a?b=c" {
			t.Errorf("%s: %s host %q url %s", name, d, req.Host, req.URL)
		}
	}
}

func TestUnmakeableProbes(t *testing.T) {
	p := newProber(t)
	for want, h := range map[string]corev1.ProbeHandler{
		`port "nope" not found`:               {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("nope")}},
		`invalid port number: 0`:              {TCPSocket: &corev1.TCPSocketAction{}},
		`no such container`:                   {Exec: &corev1.ExecAction{Command: []string{"gone"}}},
		`missing probe handler for p_ns(u):c`: {},
	} {
		r, _, err := p.Probe(t.Context(), at("127.0.0.1:1"), &corev1.Probe{ProbeHandler: h})
		if r != Unknown || err == nil || err.Error() != want {
			t.Errorf("got %s, %v; want %s", r, err, want)
		}
	}
}

func TestTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	spec := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")},
	}}
	p, tg := newProber(t), at(ln.Addr().String())
	if r, out, err := p.Probe(t.Context(), tg, spec); r != Success || err != nil {
		t.Errorf("open port: %s %q %v", r, out, err)
	}
	_ = ln.Close()
	if r, out, err := p.Probe(t.Context(), tg, spec); r != Failure || err != nil || !strings.Contains(out, "connection refused") {
		t.Errorf("closed port: %s %q %v", r, out, err)
	}
}

func TestExecExpandsAndCuts(t *testing.T) {
	p, tg := newProber(t), at("127.0.0.1:1")
	tg.Container.Env = []corev1.EnvVar{{Name: "CODE", Value: "7"}}
	r, out, err := p.Probe(t.Context(), tg, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		Exec: &corev1.ExecAction{Command: []string{"$(CODE)", "$$(CODE)", "$(NONE)", "$", "$(open", "a$b"}},
	}})
	if want := "7 $(CODE) $(NONE) $ $(open a$b"; r != Failure || out != want || err != nil {
		t.Errorf("got %s %q %v, want failure %q", r, out, err, want)
	}
	_, out, _ = p.Probe(t.Context(), tg, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		Exec: &corev1.ExecAction{Command: []string{"0", strings.Repeat("x", 2*maxOutput)}},
	}})
	if len(out) != maxOutput {
		t.Errorf("%d bytes of output, want %d", len(out), maxOutput)
	}
}

func TestGRPC(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, hs := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, hs)
	hs.SetServingStatus("sick", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	done := make(chan error)
	go func() { done <- srv.Serve(ln) }()
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bareSrv := grpc.NewServer()
	go func() { done <- bareSrv.Serve(bare) }()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()

	p := newProber(t)
	for _, c := range []struct {
		addr, service string
		want          Result
		out           string
	}{
		{ln.Addr().String(), "", Success, "service healthy"},
		{ln.Addr().String(), "sick", Failure, `service unhealthy (responded with "NOT_SERVING")`},
		{ln.Addr().String(), "none", Failure, "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"},
		{bare.Addr().String(), "", Failure, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service grpc.health.v1.Health"},
		{dead.Addr().String(), "", Failure, fmt.Sprintf("timeout: failed to connect service %q within 1s: context deadline exceeded", dead.Addr())},
	} {
		tg := at(c.addr)
		r, out, err := p.Probe(t.Context(), tg, &corev1.Probe{TimeoutSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			GRPC: &corev1.GRPCAction{Port: tg.Container.Ports[0].ContainerPort, Service: &c.service},
		}})
		if r != c.want || out != c.out || err != nil {
			t.Errorf("%s: got %s %q %v\nwant %s %q", c.service, r, out, err, c.want, c.out)
		}
	}
	srv.Stop()
	bareSrv.Stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestHooks(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer srv.Close()
	p, tg := newProber(t), at(srv.Listener.Addr().String())
	for name, c := range map[string]struct {
		h   corev1.LifecycleHandler
		msg string
	}{
		"exec":       {corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"0"}}}, ""},
		"any status": {corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("web")}}, ""},
		"plain HTTP behind HTTPS": {corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{
			Port: intstr.FromString("web"), Scheme: "HTTPS",
		}}, ""},
		"exec fails": {
			corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"3", "x"}}},
			`Exec lifecycle hook ([3 x]) for Container "c" in Pod "p_ns(u)" failed - error: command '3 x' exited with 3: 3 x, message: "3 x"`,
		},
		"no port": {
			corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/p", Port: intstr.FromString("none")}},
			`HTTP lifecycle hook (/p) for Container "c" in Pod "p_ns(u)" failed - error: port "none" not found`,
		},
	} {
		msg, err := p.Hook(t.Context(), tg, &c.h)
		if msg != c.msg || (err == nil) != (c.msg == "") {
			t.Errorf("%s: %q, %v; want %q", name, msg, err, c.msg)
		}
	}
}

func TestSleepHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, tg := newProber(t), at("127.0.0.1:1")
		begin := time.Now()
		if msg, err := p.Hook(t.Context(), tg, &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}); err != nil {
			t.Error(msg)
		}
		if d := time.Since(begin); d != 5*time.Second {
			t.Errorf("slept %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Hook(ctx, tg, &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}})
		if err == nil || err.Error() != "container terminated before sleep hook finished" {
			t.Errorf("cut short: %v", err)
		}
	})
}

func TestKillMessage(t *testing.T) {
	if got := KillMessage("web", Liveness, true); got != "Container web failed liveness probe, will be restarted" {
		t.Error(got)
	}
}
