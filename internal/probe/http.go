package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func (p *Prober) httpGet(ctx context.Context, t Target, a *corev1.HTTPGetAction, timeout time.Duration,
) (Result, string, error) {
	req, err := newRequest(ctx, t, a, "probe")
	if err != nil {
		return Unknown, "", err
	}
	client := &http.Client{Timeout: timeout, Transport: p.http1, CheckRedirect: stayLocal}
	if a.Protocol != nil && *a.Protocol == corev1.HTTPProtocolHTTP2 {
		client.Transport = p.h2c
	}
	resp, err := client.Do(req)
	if err != nil {
		return Failure, err.Error(), nil // no answer is an answer
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxOutput))
	if err != nil {
		return Failure, "", err
	}
	switch code := resp.StatusCode; {
	case code >= http.StatusMultipleChoices && code < http.StatusBadRequest:
		return Warning, fmt.Sprintf("Probe terminated redirects, Response body: %s", body), nil
	case code >= http.StatusOK && code < http.StatusBadRequest:
		return Success, string(body), nil
	default:
		// Never the body: it may hold what the events' readers must not see (upstream issue 99425).
		return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", code), nil
	}
}

// hookHTTP makes the request of a lifecycle hook. Any response will do, also one with an error status;
// only a request that gets no response has failed. A plain HTTP server behind scheme HTTPS is forgiven.
func (p *Prober) hookHTTP(ctx context.Context, t Target, a *corev1.HTTPGetAction) error {
	if a.Host == "" && t.PodIP == "" {
		return errors.New("failed to find networking container: the pod has no address")
	}
	req, err := newRequest(ctx, t, a, "lifecycle")
	if err != nil {
		return err
	}
	client := &http.Client{Transport: p.hooks, CheckRedirect: stayLocal}
	err = drain(client.Do(req))
	var urlErr *url.Error
	if errors.As(err, &urlErr) && strings.Contains(urlErr.Err.Error(), "server gave HTTP response to HTTPS client") {
		plain := req.Clone(ctx)
		plain.URL.Scheme = "http"
		plain.Header.Del("Authorization")
		if drain(client.Do(plain)) == nil {
			return nil
		}
	}
	return err
}

func drain(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxOutput) // the response itself is the answer
	_ = resp.Body.Close()
	return nil
}

// stayLocal follows redirects within one host only.
func stayLocal(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func newRequest(ctx context.Context, t Target, a *corev1.HTTPGetAction, purpose string) (*http.Request, error) {
	port, err := resolvePort(a.Port, t.Container)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path} // too late to refuse it; upstream sends it as it is
	}
	u.Scheme = strings.ToLower(string(a.Scheme))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	host := a.Host
	if host == "" {
		host = t.PodIP
	}
	u.Host = net.JoinHostPort(host, strconv.Itoa(port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range a.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "kube-"+purpose+"/"+kubeVersion)
	}
	if accept, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if accept[0] == "" {
		req.Header.Del("Accept")
	}
	req.Host = req.Header.Get("Host")
	return req, nil
}
