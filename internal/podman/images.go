package podman

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

type inspectedImage struct {
	Id                    string
	RepoTags, RepoDigests []string
	Size                  int64
	Created               time.Time
	Labels                map[string]string
	Config                struct {
		User, WorkingDir, StopSignal string
		Env, Entrypoint, Cmd         []string
		Volumes                      map[string]struct{}
	}
}

// Image finds a local image by a Kubernetes image name, or by its ID, and never asks the network. A name without a
// registry means Docker Hub's, or else one built on this machine (localhost/). Not there: ErrNotFound.
func (c *Client) Image(ctx context.Context, ref string) (Image, error) {
	names, err := LocalNames(ref)
	if err != nil {
		return Image{}, err
	}
	for _, name := range names {
		img, err := c.inspectImage(ctx, name)
		switch {
		case err == nil && img.Named(name):
			return img, nil
		case err != nil && !isNotFound(err):
			return Image{}, fmt.Errorf("inspect image %s: %w", name, err)
		}
	}
	return Image{}, fmt.Errorf("image %s: %w", ref, ErrNotFound)
}

// Named tells whether a full name or an ID is this image's. Podman also finds images by the beginning of their ID.
func (i Image) Named(name string) bool {
	if isID(name) {
		return i.ID == strings.TrimPrefix(name, "sha256:")
	}
	return slices.Contains(i.RepoTags, name) || slices.Contains(i.RepoDigests, name)
}

func (c *Client) inspectImage(ctx context.Context, name string) (Image, error) {
	var in inspectedImage
	if err := c.call(ctx, request{method: http.MethodGet, path: "/images/" + name + "/json"}, &in); err != nil {
		return Image{}, err
	}
	img := Image{
		ID: strings.TrimPrefix(in.Id, "sha256:"), RepoTags: in.RepoTags, RepoDigests: in.RepoDigests, Size: in.Size,
		User: in.Config.User, Env: in.Config.Env, Entrypoint: in.Config.Entrypoint, Cmd: in.Config.Cmd,
		WorkingDir: in.Config.WorkingDir, StopSignal: in.Config.StopSignal, Created: in.Created, Labels: in.Labels,
	}
	for v := range in.Config.Volumes {
		img.Volumes = append(img.Volumes, v)
	}
	slices.Sort(img.Volumes)
	return img, nil
}

// Images lists all local images, without their configuration.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	var list []struct {
		Id                    string
		RepoTags, RepoDigests []string
		Names                 []string
		Size                  int64
		Created               int64
		Containers            int
		Labels                map[string]string
	}
	if err := c.call(ctx, request{method: http.MethodGet, path: "/images/json"}, &list); err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := make([]Image, 0, len(list))
	for _, l := range list {
		tags := l.RepoTags
		if len(tags) == 0 {
			tags = l.Names
		}
		out = append(out, Image{
			ID: strings.TrimPrefix(l.Id, "sha256:"), RepoTags: tags, RepoDigests: l.RepoDigests, Size: l.Size,
			Created: unixTime(l.Created), Labels: l.Labels, Containers: l.Containers,
		})
	}
	return out, nil
}

// RemoveImage removes an image by ID; without force one that a container uses is ErrConflict. Absent: no error.
func (c *Client) RemoveImage(ctx context.Context, id string, force bool) error {
	r := request{method: http.MethodDelete, path: "/images/" + id, query: url.Values{"force": {fmt.Sprint(force)}}}
	err := c.call(ctx, r, nil)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	return nil
}

// Load reads an image archive (docker-archive or oci-archive) and returns the names it brought.
func (c *Client) Load(ctx context.Context, archive io.Reader) ([]string, error) {
	var out struct{ Names []string }
	h := http.Header{"Content-Type": {"application/x-tar"}}
	err := c.call(ctx, request{method: http.MethodPost, path: "/images/load", header: h, body: archive}, &out)
	if err != nil {
		return nil, fmt.Errorf("load image archive: %w", err)
	}
	return out.Names, nil
}

// Pull fetches an image by its Kubernetes name, whether or not it is there already, and returns its ID. The error is
// what the registry (or the way to it) said. Canceling ctx ends the pull.
func (c *Client) Pull(ctx context.Context, ref string, auth *Auth) (string, error) {
	name, err := PullName(ref)
	if err != nil {
		return "", err
	}
	header := http.Header{}
	if auth != nil {
		b, err := json.Marshal(map[string]string{
			"username": auth.Username, "password": auth.Password, "identitytoken": auth.IdentityToken,
		})
		if err != nil {
			return "", fmt.Errorf("encode credentials: %w", err)
		}
		header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(b))
	}
	q := url.Values{"reference": {name}, "policy": {"always"}, "quiet": {"false"}}
	resp, err := c.do(ctx, request{method: http.MethodPost, path: "/images/pull", query: q, header: header})
	if err != nil {
		return "", fmt.Errorf("pull image %s: %w", name, err)
	}
	defer resp.Body.Close()
	id, err := readPull(resp.Body)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("pull image %s: %w", name, err)
	}
	return id, nil
}

// readPull reads the stream of a pull to its end: HTTP 200 says nothing, the last line does.
func readPull(r io.Reader) (string, error) {
	dec := json.NewDecoder(r)
	var id string
	for {
		var line struct {
			Error  string   `json:"error"`
			ID     string   `json:"id"`
			Images []string `json:"images"`
		}
		err := dec.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			if id == "" {
				return "", fmt.Errorf("%w: the pull ended without a result", ErrUnavailable)
			}
			return id, nil
		case err != nil:
			return "", fmt.Errorf("%w: the pull broke off: %w", ErrUnavailable, err)
		case line.Error != "":
			return "", &apiError{status: http.StatusOK, message: line.Error}
		case line.ID != "":
			id = strings.TrimPrefix(line.ID, "sha256:")
		case len(line.Images) > 0:
			id = strings.TrimPrefix(line.Images[0], "sha256:")
		}
	}
}
