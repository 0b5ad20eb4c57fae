package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// tokens admit newcomers.
type tokens struct{ Config }

// longest is the longest life of a token that has an end.
const longest = 365 * 24 * time.Hour

// List implements swarm.Tokens.
func (t tokens) List(ctx context.Context) ([]swarm.Token, error) {
	list, err := t.Tokens.List(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	out := []swarm.Token{}
	for _, r := range list {
		if !r.Revoked {
			out = append(out, swarm.Token{
				ID: r.ID, Description: r.Description, Created: r.Created, Expires: r.Expires, Uses: r.MaxUses, Used: r.Uses,
			})
		}
	}
	return out, nil
}

// Create implements swarm.Tokens.
func (t tokens) Create(ctx context.Context, req swarm.TokenRequest) (swarm.NewToken, error) {
	ttl := time.Duration(req.TTL)
	if ttl != 0 && ttl < time.Second || ttl > longest || req.Uses < 0 {
		return swarm.NewToken{}, swarm.Invalid("a token lives 1s to %s or, with 0, for ever, and is used 0 (no limit) or more times", longest)
	}
	created := time.Now().UTC()
	token, err := t.Tokens.Create(ctx, ttl, req.Uses, req.Description)
	if err != nil {
		return swarm.NewToken{}, unavailable(err)
	}
	made := swarm.Token{ID: token.ID, Description: req.Description, Created: created, Uses: req.Uses}
	if ttl > 0 {
		made.Expires = created.Add(ttl)
	}
	return swarm.NewToken{
		Token:  made,
		Secret: token.String(), JoinCommand: JoinCommand(t.Addr, token.String()),
	}, nil
}

// JoinCommand is what to paste on the newcomer.
func JoinCommand(addr, token string) string {
	return fmt.Sprintf("podman-swarm join %s --token %s", addr, token)
}

// Revoke implements swarm.Tokens.
func (t tokens) Revoke(ctx context.Context, id string) error {
	err := t.Tokens.Revoke(ctx, id)
	if errors.Is(err, join.ErrNoToken) {
		return swarm.NotFound("there is no token %q: see podman-swarm token list", id)
	}
	return unavailable(err)
}
