package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	clientcommand "k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	clientexec "k8s.io/client-go/util/exec"
)

// node is a fake backend with one pod.
type node struct {
	pod     *corev1.Pod
	log     Log
	logErr  error
	dial    string // address behind every port
	attach  chan struct{}
	resized chan Size
}

func newNode() *node {
	return &node{
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u-1"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}, InitContainers: []corev1.Container{{Name: "i"}}},
		},
		attach: make(chan struct{}), resized: make(chan Size, 10),
	}
}

func (n *node) Pod(ns, name string) (*corev1.Pod, bool) {
	return n.pod, ns == n.pod.Namespace && name == n.pod.Name
}
func (n *node) Pods() []*corev1.Pod { return []*corev1.Pod{n.pod} }

// Exec knows a few commands.
func (n *node) Exec(ctx context.Context, c Container, cmd []string, s Streams) (int, error) {
	switch cmd[0] {
	case "cat":
		_, err := io.Copy(s.Stdout, s.Stdin)
		return 0, err
	case "both":
		fmt.Fprint(s.Stdout, "out")
		fmt.Fprint(s.Stderr, "err")
		return 0, nil
	case "exit":
		return 42, nil
	case "missing":
		return 0, errors.New("executable file `missing` not found in $PATH")
	case "tty":
		for size := range s.Resize {
			n.resized <- size
			if size.Width == 200 {
				break
			}
		}
		_, err := fmt.Fprintf(s.Stdout, "tty=%v stderr=%v %s", s.TTY, s.Stderr != nil, c.Name)
		return 0, err
	default: // runs until it is told to end
		close(n.attach)
		<-ctx.Done()
		return 0, ctx.Err()
	}
}

func (n *node) Attach(_ context.Context, c Container, s Streams) error {
	fmt.Fprintf(s.Stdout, "attached to %s\n", c.Name)
	_, err := io.Copy(s.Stdout, s.Stdin)
	return err
}

func (n *node) Dial(ctx context.Context, _ *corev1.Pod, port uint16) (net.Conn, error) {
	if port == 81 {
		return nil, errors.New("dial tcp 127.0.0.1:81: connect: connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", n.dial)
}

func (n *node) Log(_ context.Context, _ Container, previous bool) (Log, error) {
	if previous {
		return Log{}, errors.New(`previous terminated container "c" in pod "p" not found`)
	}
	return n.log, n.logErr
}

func serve(t *testing.T, n *node) (*httptest.Server, *Handler) {
	t.Helper()
	h := New(Config{Backend: n})
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		srv.CloseClientConnections()
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return srv, h
}

func executor(t *testing.T, srv *httptest.Server, path string) clientcommand.Executor {
	t.Helper()
	u, err := url.Parse(srv.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := clientcommand.NewSPDYExecutor(&rest.Config{Host: srv.URL}, http.MethodPost, u)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestExecOverSPDY(t *testing.T) {
	srv, _ := serve(t, newNode())
	var out, errOut bytes.Buffer
	run := func(query string, o clientcommand.StreamOptions) error {
		out.Reset()
		errOut.Reset()
		o.Stdout = &out
		return executor(t, srv, "/exec/ns/p/c?"+query).StreamWithContext(t.Context(), o)
	}
	in := strings.Repeat("0123456789abcdef", 100_000)
	if err := run("command=cat&input=1&output=1", clientcommand.StreamOptions{Stdin: strings.NewReader(in)}); err != nil || out.String() != in {
		t.Errorf("cat: %d of %d bytes, %v", out.Len(), len(in), err)
	}
	if err := run("command=both&output=1&error=1", clientcommand.StreamOptions{Stderr: &errOut}); err != nil || out.String() != "out" || errOut.String() != "err" {
		t.Errorf("both: %q %q %v", out.String(), errOut.String(), err)
	}
	err := run("command=exit&output=1", clientcommand.StreamOptions{})
	var code clientexec.CodeExitError
	if !errors.As(err, &code) || code.Code != 42 {
		t.Errorf("exit: %v", err)
	}
	err = run("command=missing&output=1", clientcommand.StreamOptions{})
	if err == nil || !strings.Contains(err.Error(), "executable file `missing` not found in $PATH") {
		t.Errorf("missing: %v", err)
	}
}

// sizes is a terminal that is resized.
type sizes chan clientcommand.TerminalSize

func (s sizes) Next() *clientcommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

func TestExecTTYAndResize(t *testing.T) {
	n := newNode()
	srv, _ := serve(t, n)
	queue := make(sizes, 2)
	queue <- clientcommand.TerminalSize{Width: 80, Height: 25}
	queue <- clientcommand.TerminalSize{Width: 200, Height: 50}
	close(queue)
	var out bytes.Buffer
	err := executor(t, srv, "/exec/ns/p/u-1/i?command=tty&input=1&output=1&error=1&tty=1").StreamWithContext(t.Context(),
		clientcommand.StreamOptions{Stdin: strings.NewReader(""), Stdout: &out, Tty: true, TerminalSizeQueue: queue})
	if err != nil || out.String() != "tty=true stderr=false i" {
		t.Errorf("%q %v", out.String(), err)
	}
	got := []Size{<-n.resized, <-n.resized}
	if d := cmp.Diff([]Size{{80, 25}, {200, 50}}, got); d != "" {
		t.Error(d)
	}
}

func TestAttachOverSPDY(t *testing.T) {
	srv, _ := serve(t, newNode())
	var out bytes.Buffer
	err := executor(t, srv, "/attach/ns/p/c?input=1&output=1").StreamWithContext(t.Context(),
		clientcommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
	if err != nil || out.String() != "attached to c\nhello" {
		t.Errorf("%q %v", out.String(), err)
	}
}

func TestExecOverWebSocket(t *testing.T) {
	srv, _ := serve(t, newNode())
	d := websocket.Dialer{Subprotocols: []string{"v4.channel.k8s.io"}}
	conn, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http")+"/exec/ns/p/c?command=exit&output=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	defer conn.Close()
	status := ""
	for {
		_, msg, err := conn.ReadMessage()
		if err != nil {
			break
		}
		if len(msg) > 1 && msg[0] == 3 { // the error channel
			status += string(msg[1:])
		}
	}
	if !strings.Contains(status, `"reason":"ExitCode","message":"42"`) {
		t.Errorf("status %s", status)
	}
}

func TestRefusals(t *testing.T) {
	n := newNode()
	n.logErr = &StatusError{http.StatusNotFound, "gone"}
	srv, _ := serve(t, n)
	for path, want := range map[string]string{
		"/exec/ns/other/c?command=x&output=1": "404 pod does not exist",
		"/exec/ns/p/other?command=x&output=1": `404 container not found ("other")`,
		"/exec/ns/p/u-2/c?command=x&output=1": "404 pod not found",
		"/exec/ns/p/c?command=x":              "400 you must specify at least 1 of stdin, stdout, stderr",
		"/portForward/ns/other":               "404 pod does not exist",
		"/portForward/ns/p/u-2":               "404 pod not found",
		"/containerLogs/ns/other/c":           `404 pod "other" does not exist`,
		"/containerLogs/ns/p/other":           `404 container "other" not found in pod "p"`,
		"/containerLogs/ns/p/c":               "404 gone",
		"/containerLogs/ns/p/c?previous=true": `400 previous terminated container "c" in pod "p" not found`,
		"/containerLogs/ns/p/c?tailLines=x":   "400 " + undecodable,
		"/containerLogs/ns/p/c?tailLines=-1":  "422 " + invalid,
		"/healthz":                            "200 ok",
		"/nothing":                            "404 404 page not found",
	} {
		code, body := get(t, srv, path)
		if got := fmt.Sprint(code, " ", strings.TrimSpace(body)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func get(t *testing.T, srv *httptest.Server, path string) (int, string) {
	t.Helper()
	resp, err := http.Get(srv.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestPodsAndLogs(t *testing.T) {
	n := newNode()
	n.log.Path = filepath.Join(t.TempDir(), "0.log")
	srv, _ := serve(t, n)
	_, body := get(t, srv, "/pods")
	var list corev1.PodList
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Kind != "PodList" || len(list.Items) != 1 || list.Items[0].UID != "u-1" {
		t.Errorf("%s %v", body, err)
	}
	if code, _ := get(t, srv, "/containerLogs/ns/p/c"); code != 500 {
		t.Errorf("a log that is not there: %d", code)
	}
	write(t, n.log.Path, line(1, "stdout", "F", "one"), line(2, "stderr", "F", "two"))
	if code, body := get(t, srv, "/containerLogs/ns/p/c?tailLines=1&timestamps=true"); code != 200 || body != "2026-11-23T20:24:45.000000002Z two\n" {
		t.Errorf("%d %q", code, body)
	}
	if _, body := get(t, srv, "/containerLogs/ns/p/c?stream=Stdout"); body != "one\n" {
		t.Errorf("%q", body)
	}
}

func TestFollowedLogEndsWithHandler(t *testing.T) {
	n := newNode()
	n.log = Log{Path: filepath.Join(t.TempDir(), "0.log"), Ended: make(chan struct{})}
	write(t, n.log.Path)
	srv, h := serve(t, n)
	resp, err := http.Get(srv.URL + "/containerLogs/ns/p/c?follow=true") // headers come before the first line
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	appendTo(t, n.log.Path, line(1, "stdout", "F", "live"))
	b := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "live\n" {
		t.Fatalf("%q %v", b, err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
	if code, _ := get(t, srv, "/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("a closed handler says %d", code)
	}
}

func TestCloseEndsExec(t *testing.T) {
	n := newNode()
	srv, h := serve(t, n)
	done := make(chan error, 1)
	go func() {
		done <- executor(t, srv, "/exec/ns/p/c?command=forever&output=1").StreamWithContext(t.Context(),
			clientcommand.StreamOptions{Stdout: io.Discard})
	}()
	<-n.attach
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("the client was told that all is well")
	}
}

// forward starts a port-forward and returns the local address of a remote port.
func forward(t *testing.T, srv *httptest.Server, remote string) (addr string, errOut *bytes.Buffer, stop func() error) {
	t.Helper()
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv.URL + "/portForward/ns/p")
	if err != nil {
		t.Fatal(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	stopCh, ready := make(chan struct{}), make(chan struct{})
	errOut = &bytes.Buffer{}
	pf, err := portforward.New(dialer, []string{"0:" + remote}, stopCh, ready, io.Discard, errOut)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- pf.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := pf.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), errOut, func() error { close(stopCh); return <-done }
}

func TestPortForwardOverSPDY(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(w, r.Body)
		if err != nil {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}))
	defer web.Close()
	n := newNode()
	n.dial = web.Listener.Addr().String()
	srv, _ := serve(t, n)
	addr, errOut, stop := forward(t, srv, "80")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	sent := bytes.Repeat([]byte("x"), 1<<20)
	for range 3 {
		resp, err := client.Post("http://"+addr, "text/plain", bytes.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
		}
	}
	if err := stop(); err != nil || errOut.Len() > 0 {
		t.Errorf("%v %s", err, errOut)
	}
}

func TestPortForwardHalfClose(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // answers when the client has said everything
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "got %s", b)
	}()
	n := newNode()
	n.dial = ln.Addr().String()
	srv, _ := serve(t, n)
	addr, _, stop := forward(t, srv, "80")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "got hello" {
		t.Errorf("%q %v", b, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestPortForwardRefusedAndClosed(t *testing.T) {
	srv, h := serve(t, newNode())
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv.URL + "/portForward/ns/p/u-1")
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u).Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		t.Fatal(err)
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, "81")
	headers.Set(corev1.PortForwardRequestIDHeader, "1")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	errStream, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}
	errStream.Close() // as kubectl does: it only reads
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	if _, err := conn.CreateStream(headers); err != nil {
		t.Fatal(err)
	}
	want := "error forwarding port 81 to pod p, uid u-1: dial tcp 127.0.0.1:81: connect: connection refused"
	b := make([]byte, len(want)) // the end of the stream may be lost in the reset that follows
	if _, err := io.ReadFull(errStream, b); err != nil || string(b) != want {
		t.Errorf("got %q %v, want %q", b, err, want)
	}
	// Nobody but the handler ends this session.
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	<-conn.CloseChan()
}

func TestLogTarget(t *testing.T) {
	terminated := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
	}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(time.Unix(1, 0))}}
	for name, c := range map[string]struct {
		st       corev1.ContainerStatus
		previous bool
		want     string
	}{
		"running":        {corev1.ContainerStatus{State: running, ContainerID: "podman://a"}, false, "a"},
		"previous":       {corev1.ContainerStatus{State: running, ContainerID: "a", LastTerminationState: terminated("podman://b")}, true, "b"},
		"no previous":    {corev1.ContainerStatus{State: running, ContainerID: "a"}, true, `previous terminated container "c" in pod "p" not found`},
		"terminated":     {corev1.ContainerStatus{State: terminated("d")}, false, "d"},
		"never started":  {corev1.ContainerStatus{State: terminated("")}, false, `container "c" in pod "p" is terminated`},
		"crash loop":     {corev1.ContainerStatus{State: waiting("CrashLoopBackOff"), LastTerminationState: terminated("e")}, false, "e"},
		"creating":       {corev1.ContainerStatus{State: waiting("ContainerCreating")}, false, `container "c" in pod "p" is waiting to start: ContainerCreating`},
		"no image":       {corev1.ContainerStatus{State: waiting("ErrImagePull")}, false, `container "c" in pod "p" is waiting to start: image can't be pulled`},
		"image back-off": {corev1.ContainerStatus{State: waiting("ImagePullBackOff")}, false, `container "c" in pod "p" is waiting to start: trying and failing to pull image`},
		"nothing":        {corev1.ContainerStatus{}, false, `container "c" in pod "p" is waiting to start - no logs yet`},
	} {
		pod := newNode().pod
		c.st.Name = "c"
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{c.st}
		got, err := LogTarget(pod, "c", c.previous)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	if _, err := LogTarget(newNode().pod, "c", false); err == nil || err.Error() != `container "c" in pod "p" is not available` {
		t.Error(err)
	}
}
