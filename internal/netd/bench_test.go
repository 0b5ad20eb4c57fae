package netd

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPod is one pod attached and detached.
func BenchmarkPod(b *testing.B) {
	n, pid := benchNet(b)
	began := cpu(b, pid)
	for b.Loop() {
		if _, err := n.Add(b.Context(), "pod-a"); err != nil {
			b.Fatal(err)
		}
		if err := n.Remove(b.Context(), "pod-a"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b, pid)-began).Microseconds())/float64(b.N), "helper-cpu-us/op")
}

// BenchmarkAdd is pods attached; detaching is not counted.
func BenchmarkAdd(b *testing.B) {
	n, pid := benchNet(b)
	var used time.Duration
	i := 0
	for b.Loop() {
		id := fmt.Sprintf("pod-%d", i%200)
		i++
		began := cpu(b, pid)
		if _, err := n.Add(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		used += cpu(b, pid) - began
		b.StopTimer()
		if err := n.Remove(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "helper-cpu-us/op")
}

// BenchmarkProbe is an HTTP probe of a pod without keep-alive.
func BenchmarkProbe(b *testing.B) {
	n, pid := benchNet(b)
	a, err := n.Add(b.Context(), "pod-a")
	if err != nil {
		b.Fatal(err)
	}
	replace := n.replace("pod-a")
	c := net.ListenConfig{Control: func(network, addr string, raw syscall.RawConn) error {
		return replace(b.Context(), network, addr, raw)
	}}
	l, err := c.Listen(b.Context(), "tcp4", "0.0.0.0:80")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	for name, dial := range map[string]dialFunc{"broker": n.DialContext, "plain": new(net.Dialer).DialContext} {
		b.Run(name, func(b *testing.B) {
			if name == "plain" && n.cfg.Rootless {
				b.Skip("a rootless pod network has no plain way in")
			}
			client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
			began := cpu(b, pid)
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+a.IP.String()+"/", nil)
				if err != nil {
					b.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			b.ReportMetric(float64((cpu(b, pid)-began).Microseconds())/float64(b.N), "helper-cpu-us/op")
		})
	}
}

func benchNet(b *testing.B) (n *Net, pid int) {
	b.Helper()
	cfg := testConfig(b)
	n = start(b, cfg)
	pids := helperPIDs(b, cfg)
	if len(pids) != 1 {
		b.Fatalf("helpers %v, want one", pids)
	}
	return n, pids[0]
}

// cpu is what a process has used so far, all its threads.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	var now unix.Timespec
	// The CPU clock of a process, as clock_getcpuclockid(3) makes it.
	if err := unix.ClockGettime(int32(^pid<<3|2), &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}
