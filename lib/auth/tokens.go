// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The tokens that hosts join with. A token's name is its secret, so no error
// and no log line here has it.

package auth

import (
	"context"
	"slices"
	"time"

	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
)

const (
	tokensPrefix     = "/tokens/"
	tokensUsedPrefix = "/tokens_used/"

	// minTokenLength keeps out tokens that can be guessed over the network.
	minTokenLength = 8

	// expiredTokensKept is how long a host that joins too late is told that the
	// token expired, and not that there is none.
	expiredTokensKept = 24 * time.Hour
)

func tokenCollection() collection[*types.ProvisionTokenV2] {
	return collection[*types.ProvisionTokenV2]{
		noun:        "token",
		prefix:      tokensPrefix,
		fresh:       func() *types.ProvisionTokenV2 { return &types.ProvisionTokenV2{} },
		check:       checkToken,
		keepExpired: expiredTokensKept,
		secretNames: true,
	}
}

// joinRoles are the roles of the system that a host may join with.
func joinRoles() []types.SystemRole {
	return []types.SystemRole{types.RoleNode, types.RoleProxy, types.RoleAuth}
}

func checkToken(token *types.ProvisionTokenV2) error {
	name := token.GetName()
	if len(name) < minTokenLength || len(name) > MaxNameLength {
		return trace.BadParameter("a token of %d characters cannot be: use %d to %d that cannot be guessed", len(name), minTokenLength, MaxNameLength)
	}
	for _, r := range name {
		if r <= ' ' || r > '~' {
			return trace.BadParameter("the token has a space, a control character or one that is not ASCII: use letters, digits and dashes")
		}
	}
	if err := token.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	if method := token.GetJoinMethod(); method != types.JoinMethodToken {
		return trace.BadParameter("the join method %q is not supported: use %q", method, types.JoinMethodToken)
	}
	for _, role := range token.GetRoles() {
		if !slices.Contains(joinRoles(), role) {
			return trace.BadParameter("a token cannot be for the role %q: use node, proxy or auth", role)
		}
	}
	return nil
}

func tokenV2(token types.ProvisionToken) (*types.ProvisionTokenV2, error) {
	v2, ok := token.(*types.ProvisionTokenV2)
	if !ok || v2 == nil {
		return nil, trace.BadParameter("a token must be a types.ProvisionTokenV2, and this is a %T", token)
	}
	return v2, nil
}

// CreateToken keeps a new token until it expires. The error is
// trace.AlreadyExists where there is this one already, and trace.BadParameter
// for one that is short, has expired, joins by anything but its secret, or is
// for other roles than node, proxy and auth.
func (s *Server) CreateToken(ctx context.Context, token types.ProvisionToken) error {
	v2, err := tokenV2(token)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := s.notExpired("the token", v2.Expiry()); err != nil {
		return trace.Wrap(err)
	}
	created, err := tokenCollection().create(ctx, s.store, v2)
	if trace.IsAlreadyExists(err) && s.removeExpiredToken(ctx, v2.GetName()) {
		created, err = tokenCollection().create(ctx, s.store, v2)
	}
	if err != nil {
		return trace.Wrap(err)
	}
	s.tokenCreated(ctx, created)
	return nil
}

// removeExpiredToken makes room for a new token of the name.
func (s *Server) removeExpiredToken(ctx context.Context, name string) bool {
	token, err := tokenCollection().get(ctx, s.store, name)
	return err == nil && s.isExpired(token) && s.forgetToken(ctx, name) == nil
}

func (s *Server) isExpired(token *types.ProvisionTokenV2) bool {
	expiry := token.Expiry()
	return !expiry.IsZero() && !expiry.After(s.clock.Now())
}

// UpsertToken keeps the token, new or not. One that was used stays used.
func (s *Server) UpsertToken(ctx context.Context, token types.ProvisionToken) error {
	v2, err := tokenV2(token)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := s.notExpired("the token", v2.Expiry()); err != nil {
		return trace.Wrap(err)
	}
	kept, _, err := tokenCollection().upsert(ctx, s.store, v2)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := s.prolongTokenUse(ctx, kept); err != nil {
		return trace.Wrap(err)
	}
	s.tokenCreated(ctx, kept)
	return nil
}

// tokenCreated names the token as GetSafeName does, by its end.
func (s *Server) tokenCreated(ctx context.Context, token *types.ProvisionTokenV2) {
	metadata := resourceMetadata(token)
	metadata.Name = token.GetSafeName()
	s.emit(ctx, &apievents.ProvisionTokenCreate{
		Metadata:         apievents.Metadata{Type: TokenCreatedEvent, Code: TokenCreatedCode},
		UserMetadata:     callerFrom(ctx).userMetadata(),
		ResourceMetadata: metadata,
		Roles:            token.GetRoles(),
		JoinMethod:       token.GetJoinMethod(),
	})
}

// GetToken returns trace.NotFound for a token that never was or has expired.
func (s *Server) GetToken(ctx context.Context, name string) (types.ProvisionToken, error) {
	token, err := tokenCollection().get(ctx, s.store, name)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if s.isExpired(token) {
		return nil, tokenCollection().notFound(name)
	}
	return token, nil
}

// GetTokens returns the tokens that a host can still join with: those that have
// neither expired nor been used.
func (s *Server) GetTokens(ctx context.Context) ([]types.ProvisionToken, error) {
	tokens, err := tokenCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	uses, err := s.store.Range(ctx, tokensUsedPrefix, "", 0)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	used := make(map[string]bool, len(uses))
	for _, use := range uses {
		used[use.Key] = true
	}
	out := make([]types.ProvisionToken, 0, len(tokens))
	for _, token := range tokens {
		if !s.isExpired(token) && !used[tokensUsedPrefix+escapeKey(token.GetName())] {
			out = append(out, token)
		}
	}
	return out, nil
}

// DeleteToken removes a token, and what is known of its use. The error is
// trace.NotFound where there is none.
func (s *Server) DeleteToken(ctx context.Context, name string) error {
	if err := s.forgetToken(ctx, name); err != nil {
		return trace.Wrap(err)
	}
	// GetSafeName hides the names of tokens that join by them, as all do here.
	token := &types.ProvisionTokenV2{Metadata: types.Metadata{Name: name}, Spec: types.ProvisionTokenSpecV2{JoinMethod: types.JoinMethodToken}}
	s.emitOwn(ctx, TokenDeletedEvent, TokenDeletedCode, ownEvent{Name: token.GetSafeName()})
	return nil
}

// forgetToken is DeleteToken without its event.
func (s *Server) forgetToken(ctx context.Context, name string) error {
	if err := tokenCollection().delete(ctx, s.store, name); err != nil {
		return trace.Wrap(err)
	}
	err := s.store.Delete(ctx, tokensUsedPrefix+escapeKey(name))
	if trace.IsNotFound(err) {
		return nil
	}
	return trace.Wrap(err)
}
