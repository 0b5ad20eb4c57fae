package volume

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	maxTokenAge = 24 * time.Hour   // older ones are renewed, however long they live
	maxJitter   = 10 * time.Second // renewals come this much earlier, differently per pod
	retryAfter  = time.Minute      // a renewal that failed
)

// tokens keeps the service account tokens of this node's pods and renews them at 80 % of their life or
// after 24 hours, as the kubelet does.
type tokens struct {
	cfg Config

	mu    sync.Mutex
	cache map[string]*token
}

type token struct {
	uid     types.UID // of the pod
	value   string
	expires time.Time
	renew   time.Time
}

func newTokens(cfg Config) *tokens { return &tokens{cfg: cfg, cache: map[string]*token{}} }

// get returns a token that is good for a while. When it cannot be renewed the old one is returned
// as long as it is valid.
func (t *tokens) get(ctx context.Context, namespace, account string, req *authenticationv1.TokenRequest) (string, error) {
	var seconds int64
	if req.Spec.ExpirationSeconds != nil {
		seconds = *req.Spec.ExpirationSeconds
	}
	uid := req.Spec.BoundObjectRef.UID
	key := fmt.Sprintf("%q/%q/%#v/%#v/%q", account, namespace, req.Spec.Audiences, seconds, uid)
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.cache[key]
	now := time.Now()
	if old != nil && now.Before(old.renew) {
		return old.value, nil
	}
	t.mu.Unlock()
	got, err := t.cfg.Sources.Token(ctx, namespace, account, req)
	t.mu.Lock()
	switch {
	case err != nil && old == nil:
		return "", fmt.Errorf("failed to fetch token: %w", err)
	case err != nil && !now.Before(old.expires):
		return "", fmt.Errorf("token %s expired and refresh failed: %w", key, err)
	case err != nil:
		t.cfg.Log.Warn("token not renewed", "namespace", namespace, "account", account, "err", err)
		old.renew = now.Add(retryAfter)
		return old.value, nil
	}
	fresh := &token{uid: uid, value: got.Status.Token, expires: got.Status.ExpirationTimestamp.Time}
	fresh.renew = renewAt(got, uid)
	t.cache[key] = fresh
	return fresh.value, nil
}

// renewAt is when a token has lived 80 % of its life, or 24 hours, less a jitter that is always the same
// for one pod.
func renewAt(tr *authenticationv1.TokenRequest, uid types.UID) time.Time {
	expires := tr.Status.ExpirationTimestamp.Time
	life := maxTokenAge
	if tr.Spec.ExpirationSeconds != nil {
		life = time.Duration(*tr.Spec.ExpirationSeconds) * time.Second
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(uid))
	jitter := time.Duration(h.Sum64() % uint64(maxJitter))
	issued := expires.Add(-life)
	return issued.Add(min(maxTokenAge, life-life/5) - jitter)
}

// next is when the first token of a pod wants to be renewed; zero: it has none.
func (t *tokens) next(uid types.UID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first time.Time
	for _, tok := range t.cache {
		if tok.uid == uid && (first.IsZero() || tok.renew.Before(first)) {
			first = tok.renew
		}
	}
	return first
}

func (t *tokens) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, tok := range t.cache {
		if tok.uid == uid {
			delete(t.cache, key)
		}
	}
}
