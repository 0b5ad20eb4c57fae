package stream

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// LogOptions choose what ReadLog writes.
type LogOptions struct {
	Follow     bool
	Timestamps bool
	Since      time.Time // zero: from the beginning
	Tail       int64     // lines; negative: all
	Limit      int64     // bytes; 0: no limit
	Stdout     bool
	Stderr     bool
}

// The bodies of a kubelet's refusals.
const (
	undecodable = `{"message": "Unable to decode query."}`
	invalid     = `{"message": "Invalid request."}`
)

// parseLogQuery reads the query of /containerLogs as a kubelet does: v1.PodLogOptions, with its validation.
func parseLogQuery(q url.Values, now time.Time) (o LogOptions, previous bool, err error) {
	p := logQuery{q: q}
	o = LogOptions{Follow: p.flag("follow"), Timestamps: p.flag("timestamps"), Tail: -1}
	previous = p.flag("previous")
	tail, limit, since := p.number("tailLines"), p.number("limitBytes"), p.number("sinceSeconds")
	if old := q.Get("tail"); old != "" { // the name of old clients
		if tail = nil; old != "all" {
			tail = p.number("tail")
		}
	}
	sinceTime := p.time("sinceTime")
	stream := corev1.LogStreamAll
	if q.Has("stream") {
		stream = q.Get("stream")
	}
	if p.err != nil {
		return LogOptions{}, false, &StatusError{http.StatusBadRequest, undecodable}
	}
	split := stream == corev1.LogStreamStdout || stream == corev1.LogStreamStderr
	if (tail != nil && (*tail < 0 || split)) || (limit != nil && *limit < 1) || (since != nil && *since < 1) ||
		(since != nil && !sinceTime.IsZero()) || (!split && stream != corev1.LogStreamAll) {
		return LogOptions{}, false, &StatusError{http.StatusUnprocessableEntity, invalid}
	}
	o.Since = sinceTime
	if since != nil {
		o.Since = now.Add(-time.Duration(min(*since, maxSince)) * time.Second)
	}
	if tail != nil {
		o.Tail = *tail
	}
	if limit != nil {
		o.Limit = *limit
	}
	o.Stdout, o.Stderr = stream != corev1.LogStreamStderr, stream != corev1.LogStreamStdout
	return o, previous, nil
}

// maxSince keeps a number of seconds within a time.Duration.
const maxSince = int64((1<<63 - 1) / time.Second)

// logQuery collects the first error.
type logQuery struct {
	q   url.Values
	err error
}

// flag: everything but "false" and "0" is true when it is there at all; the API machinery's rule.
func (p *logQuery) flag(name string) bool {
	v, ok := p.q[name]
	return ok && len(v) > 0 && v[0] != "0" && !strings.EqualFold(v[0], "false")
}

func (p *logQuery) number(name string) *int64 {
	v := p.q.Get(name)
	if v == "" {
		return nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		p.err = fmt.Errorf("%s: %w", name, err)
	}
	return &n
}

func (p *logQuery) time(name string) time.Time {
	v := p.q.Get(name)
	if v == "" || v == "null" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		p.err = fmt.Errorf("%s: %w", name, err)
	}
	return t
}

func (h *Handler) serveLogs(w http.ResponseWriter, r *http.Request) {
	options, previous, err := parseLogQuery(r.URL.Query(), time.Now())
	if err != nil {
		fail(w, err, http.StatusBadRequest)
		return
	}
	name, container := r.PathValue("pod"), r.PathValue("container")
	pod, ok := h.cfg.Backend.Pod(r.PathValue("namespace"), name)
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q does not exist", name), http.StatusNotFound)
		return
	}
	if !hasContainer(pod, container) {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", container, name), http.StatusNotFound)
		return
	}
	log, err := h.cfg.Backend.Log(r.Context(), Container{Pod: pod, Name: container}, previous)
	if err != nil {
		fail(w, err, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	sent := &counter{w: w}
	if err := h.ReadLog(r.Context(), log, options, sent); err != nil && r.Context().Err() == nil {
		h.cfg.Log.Warn("log not read", "pod", pod.Namespace+"/"+name, "container", container, "err", err)
		if !sent.begun {
			fail(w, err, http.StatusInternalServerError)
		}
	}
}

// counter knows whether an answer has begun.
type counter struct {
	w     http.ResponseWriter
	begun bool
}

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	c.begun = true
	return c.w.Write(b)
}

// Flush implements http.Flusher.
func (c *counter) Flush() {
	c.begun = true
	if f, ok := c.w.(http.Flusher); ok {
		f.Flush()
	}
}

// LogTarget returns the container ID whose log is meant, by upstream's rules and with its error texts
// (`container "c" in pod "p" is waiting to start: ContainerCreating`).
func LogTarget(pod *corev1.Pod, container string, previous bool) (containerID string, err error) {
	var st *corev1.ContainerStatus
	for _, list := range [][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			if st == nil && list[i].Name == container {
				st = &list[i]
			}
		}
	}
	bad := func(format string, a ...any) (string, error) {
		return "", fmt.Errorf("container %q in pod %q %s", container, pod.Name, fmt.Sprintf(format, a...))
	}
	if st == nil {
		return bad("is not available")
	}
	lastID := ""
	if t := st.LastTerminationState.Terminated; t != nil {
		lastID = t.ContainerID
	}
	switch {
	case previous:
		if lastID == "" {
			return "", fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
		}
		return bareID(lastID), nil
	case st.State.Running != nil:
		return bareID(st.ContainerID), nil
	case st.State.Terminated != nil && st.State.Terminated.ContainerID != "":
		return bareID(st.State.Terminated.ContainerID), nil
	case st.State.Terminated != nil, st.LastTerminationState.Terminated != nil:
		if lastID == "" {
			return bad("is terminated")
		}
		return bareID(lastID), nil
	case st.State.Waiting == nil:
		return bad("is waiting to start - no logs yet")
	}
	switch reason := st.State.Waiting.Reason; reason {
	case "ErrImagePull":
		return bad("is waiting to start: image can't be pulled")
	case "ImagePullBackOff":
		return bad("is waiting to start: trying and failing to pull image")
	default:
		return bad("is waiting to start: %v", reason)
	}
}

// bareID is a container ID without the runtime's name ("podman://").
func bareID(id string) string {
	if _, bare, ok := strings.Cut(id, "://"); ok {
		return bare
	}
	return id
}
