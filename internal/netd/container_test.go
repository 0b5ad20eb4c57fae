package netd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// image is a small image with an HTTP server, as the lab has it; without it the test is skipped.
const image = "localhost/busybox:1"

// TestContainers runs real containers in pods' namespaces: two pods, each a no_infra pod of Podman,
// that fetch pages from each other, from the node, and through a published port, before and after
// the helper was killed.
func TestContainers(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("Podman is not set up in the tests' own host; the lab runs this")
	}
	cfg := containerConfig(t)
	n := start(t, cfg)
	socket := podmanService(t)
	a, b := add(t, n, "pod-a"), add(t, n, "pod-b")
	for _, p := range []Attachment{a, b} {
		runPod(t, n, socket, p)
	}
	fetch := func(dial dialFunc, addr string) error {
		client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return err
	}
	eventually(t, "the pod's server", func() error { return fetch(n.DialContext, a.IP.String()+":80") })
	if err := fetch(n.DialContext, b.IP.String()+":80"); err != nil {
		eventually(t, "the other pod's server", func() error { return fetch(n.DialContext, b.IP.String()+":80") })
	}
	hp := HostPort{Port: freePort(t), Protocol: "TCP", PodIP: a.IP, PodPort: 80}
	publish(t, n, hp)
	local := fmt.Sprintf("127.0.0.1:%d", hp.Port)
	if err := fetch(new(net.Dialer).DialContext, local); err != nil {
		t.Error("published port:", err)
	}
	inPod := func(args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "podman", append([]string{"--url", "unix://" + socket, "exec", "netd-pod-b"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("%v in the pod: %v: %s", args, err, out)
		}
	}
	url := "http://" + a.IP.String() + "/"
	inPod("wget", "-q", "-O", "-", url)
	inPod("wget", "-q", "-O", "-", "http://"+b.IP.String()+"/")
	inPod("wget", "-q", "-O", "-", fmt.Sprintf("http://%s:%d/", nodeAddr(t), hp.Port))
	// busybox' ping wants a raw socket; that an ordinary user's would work shows in what Podman left.
	inPod("grep", "-q", strings.ReplaceAll(n.Sysctls()["net.ipv4.ping_group_range"], " ", "\t"), "/proc/sys/net/ipv4/ping_group_range")
	n.Close()
	inPod("wget", "-q", "-O", "-", url)
	n = start(t, cfg)
	if err := fetch(n.DialContext, a.IP.String()+":80"); err != nil {
		t.Error("after a restart:", err)
	}
}

func containerConfig(t *testing.T) Config {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("no podman")
	}
	if err := exec.CommandContext(t.Context(), "podman", "image", "exists", image).Run(); err != nil {
		t.Skip("no image " + image)
	}
	return testConfig(t)
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(what, ": ", err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(what, ": ", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// podmanService returns the API socket of Podman on a lab host.
func podmanService(t *testing.T) string {
	t.Helper()
	socket := "/run/podman/podman.sock"
	if os.Getuid() != 0 {
		socket = os.Getenv("XDG_RUNTIME_DIR") + "/podman/podman.sock"
	}
	if _, err := os.Stat(socket); err != nil {
		t.Skip("Podman's service does not run: ", err)
	}
	return socket
}

// runPod makes a no_infra pod and in it a container that joins the namespace by its path.
func runPod(t *testing.T, n *Net, socket string, p Attachment) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	call := func(ctx context.Context, method, path, body string) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, "http://d/v4.0.0/libpod/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode >= 300 {
			t.Fatalf("%s %s: %s: %s", method, path, res.Status, b)
		}
		return b
	}
	name := "netd-" + p.ID
	call(t.Context(), http.MethodPost, "pods/create", fmt.Sprintf(`{"name":"p-%s","no_infra":true}`, name))
	t.Cleanup(func() { call(context.WithoutCancel(t.Context()), http.MethodDelete, "pods/p-"+name+"?force=true", "") })
	spec, err := json.Marshal(map[string]any{
		"name": name, "pod": "p-" + name, "image": image, "stop_timeout": 0, "user": "65534",
		"cap_drop": []string{"ALL"}, "sysctl": n.Sysctls(),
		"command": []string{"sh", "-c", "mkdir /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"},
		"netns":   map[string]string{"nsmode": "path", "value": p.NetNS},
	})
	if err != nil {
		t.Fatal(err)
	}
	call(t.Context(), http.MethodPost, "containers/create", string(spec))
	call(t.Context(), http.MethodPost, "containers/"+name+"/start", "")
}
