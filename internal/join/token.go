package join

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

const (
	tokensPrefix = "/swarm/tokens/"
	// remembered is how long an expired token is kept, so that its user is told what is wrong.
	remembered   = 24 * time.Hour
	maxTokenLife = 10 * 365 * 24 * time.Hour
)

// Store is the part of state.Store that is needed here.
type Store interface {
	Apply(ctx context.Context, w state.Write) (state.Result, error)
	Barrier(ctx context.Context) error
	View() state.View
}

// TokenRecord is what the cluster knows of a token.
type TokenRecord struct {
	ID          string    `json:"id"`
	Hash        []byte    `json:"hash"` // of the secret
	Created     time.Time `json:"created"`
	Expires     time.Time `json:"expires,omitzero"` // zero: never
	MaxUses     int       `json:"maxUses"`          // 0: no limit
	Uses        int       `json:"uses"`
	Revoked     bool      `json:"revoked"`
	Description string    `json:"description,omitempty"`
	// Joined has the nodes that it admitted, by name, with what names their key.
	Joined map[string]string `json:"joined,omitempty"`
}

// joined tells whether the token has admitted that newcomer already.
func (r TokenRecord) joined(name, key string) bool { return key != "" && r.Joined[name] == key }

// Tokens makes and ends join tokens.
type Tokens struct {
	store  Store
	caHash func() [sha256.Size]byte
	now    func() time.Time
}

// NewTokens returns the tokens in store. caHash identifies the CA that newcomers shall believe.
func NewTokens(store Store, caHash func() [sha256.Size]byte) *Tokens {
	return &Tokens{store: store, caHash: caHash, now: time.Now}
}

// Create makes a token that is good for ttl (0: until it is revoked) and for that many uses (0: no
// limit). It is the only time that the secret is seen.
func (t *Tokens) Create(ctx context.Context, ttl time.Duration, uses int, description string) (pki.Token, error) {
	if ttl != 0 && ttl < time.Second || ttl > maxTokenLife {
		return pki.Token{}, fmt.Errorf("make token: a life of %s is not between 1s and %s; say 0 for a token that never expires", ttl, maxTokenLife)
	}
	if uses < 0 {
		return pki.Token{}, fmt.Errorf("make token: %d uses; say 0 for no limit", uses)
	}
	token, now := pki.NewToken(t.caHash()), t.now().UTC()
	rec := TokenRecord{
		ID: token.ID, Hash: token.Hash(), Created: now, MaxUses: uses, Description: oneLine(description),
	}
	if ttl > 0 {
		rec.Expires = now.Add(ttl)
	}
	if err := t.write(ctx, rec, 0); err != nil {
		return pki.Token{}, fmt.Errorf("make token: %w", err)
	}
	return token, nil
}

// List returns all tokens, expired ones too for a day, the newest first.
func (t *Tokens) List(ctx context.Context) ([]TokenRecord, error) {
	if err := t.store.Barrier(ctx); err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	var list []TokenRecord
	t.store.View().Ascend(tokensPrefix, after(tokensPrefix), func(e *state.Entry) bool {
		if rec, err := decodeToken(e.Value); err == nil {
			list = append(list, rec)
		}
		return true
	})
	slices.SortFunc(list, func(a, b TokenRecord) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// ErrNoToken says that there is no token with that ID.
var ErrNoToken = errors.New("no such token")

// Revoke ends a token at once. A newcomer that has not confirmed yet is refused too.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	err := t.change(ctx, id, func(rec *TokenRecord) (bool, error) {
		changed := !rec.Revoked
		rec.Revoked = true
		return changed, nil
	})
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	return nil
}

// change applies edit to the newest state of a token; edit tells whether it changed anything.
func (t *Tokens) change(ctx context.Context, id string, edit func(*TokenRecord) (bool, error)) error {
	for {
		if err := t.store.Barrier(ctx); err != nil {
			return err
		}
		rec, e, ok := t.find(t.store.View(), id)
		if !ok {
			return ErrNoToken
		}
		changed, err := edit(&rec)
		if err != nil || !changed {
			return err
		}
		if err = t.write(ctx, rec, e.ModRevision); !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
}

func (t *Tokens) find(v state.View, id string) (TokenRecord, *state.Entry, bool) {
	e, ok := v.Get(tokensPrefix + id)
	if !ok {
		return TokenRecord{}, nil, false
	}
	rec, err := decodeToken(e.Value)
	return rec, e, err == nil
}

func (t *Tokens) write(ctx context.Context, rec TokenRecord, expect uint64) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	w := state.Write{Key: tokensPrefix + rec.ID, Value: data, Expect: expect}
	if !rec.Expires.IsZero() {
		w.TTL = max(int64(rec.Expires.Add(remembered).Sub(t.now())/time.Second), 1)
	}
	_, err = t.store.Apply(ctx, w)
	return err
}

// check finds the record of a token and refuses one that is not good. The secret is compared in
// constant time, also with a token that does not exist.
func (t *Tokens) check(v state.View, token pki.Token) (TokenRecord, *Refusal) {
	rec, _, ok := t.find(v, token.ID)
	want := rec.Hash
	if !ok || len(want) != sha256.Size {
		want = make([]byte, sha256.Size)
	}
	same := subtle.ConstantTimeCompare(want, token.Hash()) == 1
	switch {
	case !same || !ok:
		return rec, refuse(WrongToken, "wrong join token: this cluster knows no token %s with that secret; %s", token.ID, makeToken)
	case rec.Revoked:
		return rec, refuse(Revoked, "join token %s was revoked; %s", rec.ID, makeToken)
	case !rec.Expires.IsZero() && !t.now().Before(rec.Expires):
		return rec, refuse(Expired, "join token %s expired at %s; %s", rec.ID, rec.Expires.Format(time.RFC3339), makeToken)
	}
	return rec, nil
}

// spent refuses a newcomer when the token's uses are taken, pending of them by newcomers that have
// not confirmed yet.
func (r TokenRecord) spent(name, key string, pending int) *Refusal {
	if r.MaxUses == 0 || r.Uses+pending < r.MaxUses || r.joined(name, key) {
		return nil
	}
	if r.Uses < r.MaxUses {
		return refuse(UsedUp, "join token %s is being used by another node for the last time (%d allowed); %s", r.ID, r.MaxUses, makeToken)
	}
	return refuse(UsedUp, "join token %s is used up (%d of %d); %s", r.ID, r.Uses, r.MaxUses, makeToken)
}

// count takes one use for a newcomer, once.
func (t *Tokens) count(ctx context.Context, id, name, key string) error {
	err := t.change(ctx, id, func(rec *TokenRecord) (bool, error) {
		if rec.Revoked {
			return false, refuse(Revoked, "join token %s was revoked; %s", rec.ID, makeToken)
		}
		if rec.joined(name, key) {
			return false, nil
		}
		if r := rec.spent(name, key, 0); r != nil {
			return false, r
		}
		rec.Uses++
		if rec.Joined == nil {
			rec.Joined = map[string]string{}
		}
		rec.Joined[name] = key
		return true, nil
	})
	if errors.Is(err, ErrNoToken) {
		return refuse(Revoked, "join token %s is gone; %s", id, makeToken)
	}
	return err
}

func decodeToken(data []byte) (TokenRecord, error) {
	var rec TokenRecord
	err := json.Unmarshal(data, &rec)
	return rec, err
}

// after is the first key behind all that begin with prefix, which ends with a slash.
func after(prefix string) string { return prefix[:len(prefix)-1] + "0" }
