package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxAnswer is more than any answer that is not a file.
const maxAnswer = 64 << 20

// Client calls the extension API of one server. Trust and identity are the *http.Client's.
type Client struct {
	http *http.Client
	base string
}

// NewClient returns a client of the server at base, for example https://10.0.0.1:6443.
func NewClient(c *http.Client, base string) *Client {
	return &Client{http: c, base: strings.TrimRight(base, "/")}
}

// send makes one request and returns the answer of a server that agreed.
func (c *Client) send(ctx context.Context, method, path string, in io.Reader, kind string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", c.base, err)
	}
	req.Header.Set("Accept", "application/json, "+jsonLines)
	if in != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL is in the line already
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("%w %s: %w", ErrUnreachable, c.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, c.refusal(resp)
	}
	return resp, nil
}

// ErrUnreachable begins errors that say no server answered.
var ErrUnreachable = errors.New("cannot reach")

// refusal makes an error of an answer that is not 200. Whoever serves the API may answer by itself
// with a Kubernetes Status, or with text.
func (c *Client) refusal(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // what can be read is enough
	var e struct{ Error, Message string }
	if json.Unmarshal(data, &e) == nil && e.Error != "" {
		return &Error{Code: resp.StatusCode, Message: e.Error}
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return &Error{Code: resp.StatusCode, Message: c.base + " has no " + strings.TrimSuffix(Prefix, "/") + ": it is no Podman Swarm, or an older release"}
	case e.Message == "":
		e.Message = strings.Join(strings.Fields(string(data)), " ")
	}
	if e.Message == "" {
		e.Message = resp.Status
	}
	return &Error{Code: resp.StatusCode, Message: c.base + ": " + e.Message}
}

// call sends in (nil: nothing) and reads the answer.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	content, err := encode(in)
	if err != nil {
		return out, err
	}
	resp, err := c.send(ctx, method, path, content, "application/json")
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out); err != nil {
		return out, fmt.Errorf("answer of %s: %w", c.base, err)
	}
	return out, nil
}

func encode(in any) (io.Reader, error) {
	if in == nil {
		return nil, nil
	}
	data, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return bytes.NewReader(data), nil
}

// follow is call for an operation that streams: say gets every line of progress.
func follow[T any](ctx context.Context, c *Client, path string, in any, say func(string)) (T, error) {
	var out T
	content, err := encode(in)
	if err != nil {
		return out, err
	}
	return followBody[T](ctx, c, path, content, "application/json", say)
}

func followBody[T any](ctx context.Context, c *Client, path string, in io.Reader, kind string, say func(string)) (T, error) {
	var out T
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(silence, func() {
		cancel(fmt.Errorf("nothing was heard for %s; %s", silence, cutOffHint))
	})
	defer silent.Stop()
	resp, err := c.send(ctx, http.MethodPost, path, in, kind)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var e Event
		if err := d.Decode(&e); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return out, fmt.Errorf("%s: %w", c.base, cause)
			}
			return out, fmt.Errorf("%s ended the connection (%w); %s", c.base, err, cutOffHint)
		}
		silent.Reset(silence)
		switch {
		case e.Error != "":
			return out, &Error{Code: e.Code, Message: e.Error}
		case e.Result != nil:
			if err := json.Unmarshal(e.Result, &out); err != nil {
				return out, fmt.Errorf("result from %s: %w", c.base, err)
			}
			return out, nil
		case e.Message != "":
			say(e.Message)
		}
	}
}
