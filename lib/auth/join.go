// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Joining: a token against the certificates of a new host.
//
// A token is for one host. Which it is, the store decides: the first to write
// itself down under the token's name. An answer that was lost on the way is given
// again to the same host with the same keys, once for each role of the token.

package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/limits"
	"teleport-auditd/lib/notice"
)

// InstanceJoinEvent and its codes are of the event of a host that joined, or
// tried to.
const (
	InstanceJoinEvent       = "instance.join"
	InstanceJoinCode        = "TJ002I"
	InstanceJoinFailureCode = "TJ002E"
)

// tokenUse is by whom a token was used. It is kept for as long as the token is,
// and longer.
type tokenUse struct {
	HostID string `json:"host_id"`
	// Keys are, for each role that the host has joined with, the hash of its
	// keys.
	Keys map[types.SystemRole]string `json:"keys"`
}

const (
	// maxRefusedJoins is how many joins may be refused to one address (IPv4, or
	// IPv6 /64) at once, and refusedJoinsRate how many a second after them. Hosts
	// that join through a proxy have the proxy's.
	maxRefusedJoins  = 60
	refusedJoinsRate = 1.0 / 6
	// joiningClients is how many addresses are remembered.
	joiningClients = 10_000
	// maxRecordedJoins is how many refused joins at once have an event and a line
	// of their own, wherever they come from, and recordedJoinsRate how many a
	// second after them.
	maxRecordedJoins  = 200
	recordedJoinsRate = 0.5
	// longToken is how long the tokens are that tctl makes, 128 bits in hex. Nobody
	// guesses one of this length, however often.
	longToken = 32
)

// joinLimits bound what those cause who try to join.
type joinLimits struct {
	// Who has a token does not have to wait for what strangers are refused: these
	// may have the same address, that of a proxy.
	strangers, holders joinLimit
	// beyond tells of those that have no event of their own.
	beyond *notice.Notice
}

// joinLimit is what all of one kind may cause.
type joinLimit struct {
	refused  *limits.Rate
	recorded *limits.Rate // of all together
}

func newJoinLimits(s *Server) *joinLimits {
	limit := func() joinLimit {
		return joinLimit{
			refused:  limits.NewRate(refusedJoinsRate, maxRefusedJoins, joiningClients, s.clock),
			recorded: limits.NewRate(recordedJoinsRate, maxRecordedJoins, 1, s.clock),
		}
	}
	return &joinLimits{strangers: limit(), holders: limit(), beyond: notice.New(s.clock, s.tellRefusedJoins)}
}

// mayTry is the limit that holds for a request before anything else of it is
// looked at. A token that could be guessed is a stranger's: the limit is what keeps
// it from being guessed.
func (s *Server) mayTry(ctx context.Context, req *types.RegisterUsingTokenRequest) *limits.Rate {
	if len(req.Token) < longToken || len(req.Token) > MaxNameLength {
		return s.joins.strangers.refused
	}
	// Without an answer of the store nobody joins, either way.
	if _, err := s.store.Get(ctx, tokenCollection().key(req.Token)); err != nil {
		return s.joins.strangers.refused
	}
	return s.joins.holders.refused
}

// tellRefusedJoins is the line and the event of joins that have none of their own.
func (s *Server) tellRefusedJoins(times int, last error) {
	s.log.WithField("addr", last).Warnf("Joins refused beside those that are in the log: %d. The address is that of the last.", times)
	ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
	defer cancel()
	s.emitStrangers(ctx, &apievents.InstanceJoin{
		Metadata:           apievents.Metadata{Type: InstanceJoinEvent, Code: InstanceJoinFailureCode},
		Status:             apievents.Status{Error: fmt.Sprintf("refused beside those with an event of their own: %d, the last from the address of this event", times)},
		Method:             string(types.JoinMethodToken),
		ConnectionMetadata: apievents.ConnectionMetadata{RemoteAddr: last.Error()},
	})
}

// emitStrangers is emit for an event about a token that nobody knows.
func (s *Server) emitStrangers(ctx context.Context, event apievents.AuditEvent) {
	if err := s.EmitStrangersEvent(context.WithoutCancel(ctx), event); err != nil {
		s.log.WithError(err).WithField("event", event.GetType()).Error("An audit event could not be kept.")
	}
}

// RegisterUsingToken returns the certificates of a host that joins with a token,
// as GenerateHostCerts does. The host's address is among its names.
//
// The error is trace.AccessDenied, with one line that says why, for a token that
// does not exist, has expired, is for another role or was used by another host or
// with other keys, for a host that has joined before and had other keys, and for a
// node that asks for a proxy's name. It is trace.BadParameter for a request that
// cannot be granted with any token, and trace.LimitExceeded for an address that was
// refused too often: it may try again later. All outcomes are in the audit log, but
// what is refused too often as a number alone, each minute.
func (s *Server) RegisterUsingToken(ctx context.Context, req *types.RegisterUsingTokenRequest) (*proto.Certs, error) {
	if req == nil {
		return nil, trace.BadParameter("there is no request to join")
	}
	refused := s.mayTry(ctx, req)
	if !refused.Allow(req.RemoteAddr) {
		s.joins.beyond.Happened(errors.New(eventText(req.RemoteAddr)))
		return nil, trace.LimitExceeded("too many joins were refused to this address: try again in a minute")
	}
	certs, token, err := s.register(ctx, req)
	if !trace.IsAccessDenied(err) && !trace.IsBadParameter(err) {
		refused.Return(req.RemoteAddr)
	}
	event := &apievents.InstanceJoin{
		Metadata: apievents.Metadata{Type: InstanceJoinEvent, Code: InstanceJoinCode},
		Status:   apievents.Status{Success: true},
		HostID:   eventText(req.HostID),
		NodeName: eventText(req.NodeName),
		Role:     eventText(string(req.Role)),
		Method:   string(types.JoinMethodToken),
		ConnectionMetadata: apievents.ConnectionMetadata{
			RemoteAddr: eventText(req.RemoteAddr),
		},
	}
	if token != nil {
		event.TokenExpires = token.Expiry()
	}
	if err != nil {
		// Strangers must not hide who comes with a token that somebody else has used.
		recorded := s.joins.strangers.recorded
		if token != nil {
			recorded = s.joins.holders.recorded
		}
		if !recorded.Allow("") {
			s.joins.beyond.Happened(errors.New(eventText(req.RemoteAddr)))
			return nil, trace.Wrap(err)
		}
		event.Code = InstanceJoinFailureCode
		event.Status = apievents.Status{Error: trace.UserMessage(err)}
		s.log.WithField("addr", eventText(req.RemoteAddr)).Warnf("A host could not join: %v.", trace.UserMessage(err))
		if token == nil {
			s.emitStrangers(ctx, event)
		} else {
			s.emit(ctx, event)
		}
		return nil, trace.Wrap(err)
	}
	if err := s.EmitAuditEvent(ctx, event); err != nil {
		return nil, trace.Wrap(err, "writing the join to the audit log")
	}
	return certs, nil
}

// eventText is what a stranger has sent, as it may stand in a record.
func eventText(text string) string {
	if text == "" || checkName("text", text) == nil {
		return text
	}
	return strconv.QuoteToASCII(cutTo(text, 64))
}

// register returns the token beside an error, too, where there is one.
func (s *Server) register(ctx context.Context, req *types.RegisterUsingTokenRequest) (*proto.Certs, *types.ProvisionTokenV2, error) {
	if len(req.EC2IdentityDocument) > 0 || req.IDToken != "" {
		return nil, nil, trace.BadParameter("hosts join with the secret of a token here, and with no other proof: make a token with tctl tokens add")
	}
	token, err := s.joinToken(ctx, req)
	if err != nil {
		return nil, token, trace.Wrap(err)
	}
	// Whatever is wrong with the request must not cost the token.
	checked, err := s.checkJoin(req)
	if err != nil {
		return nil, token, trace.Wrap(err)
	}
	if err := s.checkHostLocks(ctx, checked.ssh); err != nil {
		return nil, token, trace.Wrap(err)
	}
	if err := s.checkBinding(ctx, checked); err != nil {
		return nil, token, trace.Wrap(err)
	}
	if err := s.checkSameHost(ctx, token, checked.ssh); err != nil {
		return nil, token, trace.Wrap(err)
	}
	if err := s.checkNames(ctx, checked); err != nil {
		return nil, token, trace.Wrap(err)
	}
	if err := s.useToken(ctx, token, req); err != nil {
		return nil, token, trace.Wrap(err)
	}
	if err := s.bindHost(ctx, checked); err != nil {
		return nil, token, trace.Wrap(err)
	}
	certs, err := s.signHostCerts(ctx, checked)
	return certs, token, trace.Wrap(err)
}

// joinToken returns a token that may be used for the role now, and beside an error
// one that may not.
func (s *Server) joinToken(ctx context.Context, req *types.RegisterUsingTokenRequest) (*types.ProvisionTokenV2, error) {
	const makeOne = "make a new one with tctl tokens add"
	if req.Token == "" || len(req.Token) > MaxNameLength {
		return nil, trace.AccessDenied("the token is not one of this cluster: %s", makeOne)
	}
	token, err := tokenCollection().get(ctx, s.store, req.Token)
	if trace.IsNotFound(err) {
		return nil, trace.AccessDenied("the token is not one of this cluster: %s", makeOne)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if s.isExpired(token) {
		return token, trace.AccessDenied("the token expired at %s: %s", token.Expiry().UTC().Format(time.RFC3339), makeOne)
	}
	if !token.GetRoles().Include(req.Role) {
		return token, trace.AccessDenied("the token is of another type, for the role %s and not for %q: %s", token.GetRoles().String(), cutTo(string(req.Role), 32), makeOne)
	}
	return token, nil
}

func (s *Server) checkJoin(req *types.RegisterUsingTokenRequest) (*hostCerts, error) {
	// Who joins chooses its id, and it is a name under which users reach hosts.
	if _, err := uuid.Parse(req.HostID); err != nil || len(req.HostID) != len(uuid.Nil.String()) {
		return nil, trace.BadParameter("the host id %q is no UUID: take away host_uuid in the host's data_dir, and the next start makes one", cutTo(req.HostID, MaxNameLength))
	}
	principals := req.AdditionalPrincipals
	if addr := remoteIP(req.RemoteAddr); addr.IsValid() {
		principals = append(principals[:len(principals):len(principals)], addr.String())
	}
	return s.checkHostCerts(&proto.HostCertsRequest{
		HostID:               req.HostID,
		NodeName:             req.NodeName,
		Role:                 req.Role,
		AdditionalPrincipals: principals,
		DNSNames:             req.DNSNames,
		PublicTLSKey:         req.PublicTLSKey,
		PublicSSHKey:         req.PublicSSHKey,
		RemoteAddr:           req.RemoteAddr,
	})
}

// useToken writes down that the host joins with the token in this role, unless
// another has, or the same with other keys.
func (s *Server) useToken(ctx context.Context, token *types.ProvisionTokenV2, req *types.RegisterUsingTokenRequest) error {
	key := tokensUsedPrefix + escapeKey(token.GetName())
	keys := joinKeys(req)
	for range maxRaces {
		use := tokenUse{HostID: req.HostID, Keys: map[types.SystemRole]string{}}
		item, err := s.store.Get(ctx, key)
		first := trace.IsNotFound(err)
		if err != nil && !first {
			return trace.Wrap(err)
		}
		if !first {
			if use, err = readTokenUse(item); err != nil {
				return trace.Wrap(err)
			}
		}
		used, again := use.Keys[req.Role]
		switch {
		case use.HostID != req.HostID:
			return trace.AccessDenied("the token was used already, by another host: make a new one with tctl tokens add")
		case again && used != keys:
			return trace.AccessDenied("the token was used already, by this host with other keys: make a new one with tctl tokens add")
		case again:
			return nil
		}
		use.Keys[req.Role] = keys
		value, err := json.Marshal(use)
		if err != nil {
			return trace.Wrap(err)
		}
		item = backend.Item{Key: key, Value: value, Expires: useExpiry(token), Revision: item.Revision}
		if first {
			err = s.store.Create(ctx, item)
		} else {
			_, err = s.store.CompareAndSwap(ctx, item)
		}
		if err == nil {
			return nil
		}
		if !trace.IsAlreadyExists(err) && !trace.IsCompareFailed(err) {
			return trace.Wrap(err)
		}
	}
	return trace.LimitExceeded("too many hosts try the token at once: try again")
}

func readTokenUse(item backend.Item) (tokenUse, error) {
	var use tokenUse
	if err := json.Unmarshal(item.Value, &use); err != nil || use.HostID == "" || use.Keys == nil {
		// It was used: by whom is not known.
		return tokenUse{}, trace.AccessDenied("the token was used already, and by whom cannot be read: make a new one with tctl tokens add")
	}
	return use, nil
}

// useExpiry is when the use of a token may be forgotten: after the token.
func useExpiry(token *types.ProvisionTokenV2) time.Time {
	if token.Expiry().IsZero() {
		return time.Time{}
	}
	return token.Expiry().Add(2 * expiredTokensKept)
}

// prolongTokenUse keeps what is known of the use of a token that is to be good
// for longer, or for ever.
func (s *Server) prolongTokenUse(ctx context.Context, token *types.ProvisionTokenV2) error {
	for range maxRaces {
		item, err := s.store.Get(ctx, tokensUsedPrefix+escapeKey(token.GetName()))
		if trace.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return trace.Wrap(err)
		}
		item.Expires = useExpiry(token)
		_, err = s.store.CompareAndSwap(ctx, item)
		if !trace.IsCompareFailed(err) {
			return trace.Wrap(err)
		}
	}
	return trace.LimitExceeded("the token is being used by many hosts at once: try again")
}

// joinKeys is the hash of the keys of a request.
func joinKeys(req *types.RegisterUsingTokenRequest) string {
	hash := sha256.New()
	for _, key := range [][]byte{req.PublicSSHKey, req.PublicTLSKey} {
		sum := sha256.Sum256(bytes.TrimSpace(key))
		hash.Write(sum[:])
	}
	return hex.EncodeToString(hash.Sum(nil))
}
