// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
)

// Why authentication failed, in the words that the audit record and the log get.
// They are joined by hyphens because a record can carry no space but in hex, which
// nobody reads. The client is told none of them.
const (
	reasonNoCertificate     = "no-certificate-was-offered"
	reasonPlainKey          = "key-is-not-a-certificate"
	reasonAlgorithm         = "key-or-signature-algorithm-is-not-accepted"
	reasonUntrusted         = "certificate-authority-is-not-trusted"
	reasonCAsUnreadable     = "certificate-authorities-could-not-be-read"
	reasonShortCA           = "certificate-authority-RSA-key-is-shorter-than-2048-bits"
	reasonCAAlgorithm       = "certificate-authority-signature-algorithm-is-not-accepted"
	reasonForged            = "certificate-signature-does-not-verify"
	reasonNotUserCert       = "certificate-is-not-a-user-certificate"
	reasonNotHostCert       = "certificate-is-not-a-host-certificate"
	reasonHostID            = "login-is-not-the-host-id-of-the-certificate"
	reasonHostRole          = "host-certificate-is-of-another-role"
	reasonHostOptions       = "host-certificate-has-critical-options"
	reasonShortKey          = "RSA-key-is-shorter-than-2048-bits"
	reasonNotProven         = "certificate-was-offered-but-its-key-was-not-proven"
	reasonSignature         = "signature-does-not-verify"
	reasonNotYetValid       = "certificate-is-not-yet-valid"
	reasonExpired           = "certificate-has-expired"
	reasonNoPrincipals      = "certificate-has-no-principals"
	reasonPrincipal         = "login-is-not-among-the-principals"
	reasonEmptyForceCommand = "critical-option-force-command-is-empty"
	reasonBadSourceAddress  = "critical-option-source-address-is-malformed"
	reasonSourceAddress     = "source-address-is-not-allowed"
	reasonNoUser            = "no-such-user-on-this-host"
	reasonUsersUnreadable   = "user-database-could-not-be-read"
	reasonRolesUnreadable   = "roles-cannot-be-read"
	reasonNotAuthorized     = "access-could-not-be-decided"
	reasonSecondFactor      = "second-factor-was-not-given"
	reasonGraceTime         = "login-grace-time-is-over"
	reasonCrowded           = "too-many-have-not-authenticated"
	reasonShutdown          = "server-is-shutting-down"
	reasonInternal          = "internal-error"
)

const (
	// maxBannerPart is how much of a banner goes into one packet.
	maxBannerPart = 30 << 10
	// maxLogin is the longest name that useradd(8) and NSS take.
	maxLogin = 255
	// maxEventName bounds what one refused client can make the event queue
	// hold. A record carries less.
	maxEventName = 4096
	// maxLogName is how much of a name a log line quotes.
	maxLogName = 128
)

// telling says how much a failure tells about who tried to get in. Of all the
// failures of one connection the most telling one is reported.
type telling int

const (
	silent        telling = iota // no login name was given
	noCertificate                // "none", a password and the like
	plainKey                     // a key, but no certificate that can be read
	untrusted                    // a certificate that no trusted authority signed
	offered                      // a trusted one, whose key was not proven
	proven                       // a trusted one, whose key was proven
)

// failure is why one attempt to authenticate failed. As an error it passes
// through x/crypto/ssh, which shows it to nobody but the callbacks.
type failure struct {
	telling telling
	login   string
	// person is the key id, where telling is proven.
	person string
	// host says that the certificate is a host's.
	host   bool
	reason string
}

func (f *failure) Error() string { return f.reason }

// login is the authentication of one connection. All of it runs on the
// connection's goroutine.
type login struct {
	server *Server
	conn   *connection
	// worst is the most telling failure so far; the later one of two alike.
	worst failure
	// accepted says that the last key that was offered may be proven, and
	// acceptedLogin for whom.
	accepted      bool
	acceptedLogin string
	// identity is set where the certificate was found good.
	identity Identity
	// second is what came of Config.SecondFactor, and final a refusal of its that
	// stands.
	second io.Closer
	final  *failure
	// first is the login that was asked for first.
	first string
	// client is for banners, before the client has authenticated.
	client ssh.ServerPreAuthConn
}

// authenticate lets the client prove who it is. It returns nil where the client
// did not; the events are emitted then.
func (s *Server) authenticate(c *connection) *Conn {
	l := &login{server: s, conn: c}
	grace := s.cfg.Clock.AfterFunc(s.cfg.LoginGraceTime, func() { s.drop(c, reasonGraceTime) })
	defer grace.Stop()

	config := &ssh.ServerConfig{
		PublicKeyAuthAlgorithms:   signatureAlgorithms(),
		ServerVersion:             serverVersion,
		PublicKeyCallback:         l.keyOffered,
		VerifiedPublicKeyCallback: l.keyProven,
		AuthLogCallback:           l.attempted,
		PreAuthConnCallback:       func(conn ssh.ServerPreAuthConn) { l.client = conn },
		// It is the one callback that comes with every first request, even
		// with one that is broken off.
		BannerCallback: l.asked,
	}
	if err := addHostKeys(config, s.cfg.HostSigners()); err != nil {
		s.hostKeyTrouble.Happened(err)
		return nil
	}

	conn, err := l.handshake(config)
	if err == nil && s.admit(c) {
		conn.SecondFactor = l.second
		who := conn.Identity.TeleportUser
		if conn.Identity.HostID != "" {
			who = "host " + conn.Identity.HostID
		}
		s.log.Infof("%v has authenticated for login %v from %v with certificate %d of %s.",
			quote(who), quote(conn.Identity.Login), c.RemoteAddr(), conn.Identity.Serial, conn.Identity.CA)
		return conn
	}
	if l.second != nil {
		if err := l.second.Close(); err != nil {
			s.log.Errorf("Ending what was begun for %v: %v", quote(l.identity.TeleportUser), err)
		}
	}
	if err == nil {
		// The grace time ended, or the server, just as the client succeeded.
		c.Close()
		discard(conn.Channels, conn.Requests)
		l.note(failure{telling: proven, login: conn.Identity.Login, person: conn.Identity.TeleportUser, reason: s.whyDropped(c)})
	}
	l.refused(err)
	return nil
}

// handshake runs the key exchange and the authentication.
func (l *login) handshake(config *ssh.ServerConfig) (conn *Conn, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			l.server.log.Errorf("Authenticating a client at %v panicked: %v", l.conn.RemoteAddr(), cause)
			l.server.log.Debugf("%s", debug.Stack())
			err = trace.Errorf("authentication panicked")
			if l.worst.telling != silent {
				l.worst.reason = reasonInternal
			}
		}
	}()
	greeted, offer := greet(l.conn, serverVersion)
	config.Config = transportAlgorithms(ciphersFor(offer, hasAES()))
	serverConn, channels, requests, err := ssh.NewServerConn(greeted, config)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &Conn{ServerConn: serverConn, Channels: channels, Requests: requests, Identity: l.identity}, nil
}

// note keeps f if it is at least as telling as what is known.
func (l *login) note(f failure) {
	if f.telling >= l.worst.telling {
		l.worst = f
	}
}

// refuse notes a failure and returns it for x/crypto/ssh.
func (l *login) refuse(f failure) error {
	l.note(f)
	return &f
}

// asked hears of the first request, and shows the banner.
func (l *login) asked(meta ssh.ConnMetadata) (last string) {
	l.first = meta.User()
	l.note(failure{telling: noCertificate, login: meta.User(), reason: reasonNoCertificate})
	if l.server.cfg.Banner == nil {
		return ""
	}
	// A packet may not be longer than clients must take (RFC 4253, section 6.1),
	// and several banners are as good as one.
	text := l.server.cfg.Banner()
	for len(text) > maxBannerPart {
		n := maxBannerPart
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		if l.client == nil || n == 0 || l.client.SendAuthBanner(text[:n]) != nil {
			// The client is gone, which reading tells.
			return ""
		}
		text = text[n:]
	}
	return text
}

// attempted hears how each attempt ended, but for keys that may be proven, and
// signatures that do not verify.
func (l *login) attempted(meta ssh.ConnMetadata, method string, err error) {
	var known *failure
	var more *ssh.PartialSuccessError
	switch {
	case err == nil, errors.As(err, &more), l.otherLogin(meta):
	case errors.As(err, &known):
		// Again, since x/crypto/ssh remembers what it was told of a key.
		l.note(*known)
	case method == "publickey":
		l.note(failure{telling: plainKey, login: meta.User(), reason: reasonAlgorithm})
	default:
		l.note(failure{telling: noCertificate, login: meta.User(), reason: reasonNoCertificate})
	}
}

// otherLogin ends a connection that asks for another login than at first, as
// OpenSSH's server does. One connection is one refusal in the audit trail, so the
// second name would hide the first.
func (l *login) otherLogin(meta ssh.ConnMetadata) bool {
	if meta.User() == l.first {
		return false
	}
	l.conn.Close()
	return true
}

// keyOffered decides whether a key may be proven: only where a trusted authority
// signed its certificate. What depends on the person is for keyProven, so that
// a failure names nobody who was not there.
func (l *login) keyOffered(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	l.accepted = false
	if l.otherLogin(meta) {
		return nil, &l.worst
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, l.refuse(failure{telling: plainKey, login: meta.User(), reason: reasonPlainKey})
	}
	if how, reason := l.checkAuthority(cert); reason != "" {
		return nil, l.refuse(failure{telling: how, login: meta.User(), reason: reason})
	}
	l.accepted, l.acceptedLogin = true, meta.User()
	l.note(failure{telling: offered, login: meta.User(), reason: reasonNotProven})
	return &ssh.Permissions{}, nil
}

// keyProven decides whether the certificate lets its owner, who is there, log in.
func (l *login) keyProven(meta ssh.ConnMetadata, key ssh.PublicKey, permissions *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	if l.otherLogin(meta) {
		return nil, &l.worst
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, l.refuse(failure{telling: plainKey, login: meta.User(), reason: reasonPlainKey})
	}
	// Again, since an authority may have gone while the key was only offered.
	if how, reason := l.checkAuthority(cert); reason != "" {
		return nil, l.refuse(failure{telling: how, login: meta.User(), reason: reason})
	}
	refuse := func(reason string) error {
		return l.refuse(failure{telling: proven, login: meta.User(), person: cert.KeyId, host: cert.CertType == ssh.HostCert, reason: reason})
	}
	if reason := checkPerson(cert, meta.User(), meta.RemoteAddr(), l.server.cfg.Clock.Now()); reason != "" {
		return nil, refuse(reason)
	}
	if cert.CertType == ssh.HostCert {
		if reason := checkHost(cert, l.server.cfg.Hosts, meta.User()); reason != "" {
			return nil, refuse(reason)
		}
		l.identity, _ = identify(cert, meta.User(), 0)
		l.identity.HostID, l.identity.TeleportUser = meta.User(), ""
		if reason := l.authorize(); reason != "" {
			return nil, refuse(reason)
		}
		return permissions, nil
	}
	uid, found, err := l.lookup(meta.User())
	if err != nil {
		l.server.log.Errorf("Refused %v the login %v, because it could not be looked up: %v", quote(cert.KeyId), quote(meta.User()), err)
		return nil, refuse(reasonUsersUnreadable)
	}
	if !found && l.server.cfg.LookupUID != nil {
		return nil, refuse(reasonNoUser)
	}
	var unreadable map[string]error
	l.identity, unreadable = identify(cert, meta.User(), uid)
	for name, err := range unreadable {
		l.server.log.Warnf("The certificate of %v has an extension %s that cannot be read: %v", quote(cert.KeyId), name, err)
	}
	// Without its roles the certificate would be one that has none, and those are
	// decided by their principals alone.
	if unreadable[rolesExtension] != nil {
		return nil, refuse(reasonRolesUnreadable)
	}
	if reason := l.authorize(); reason != "" {
		return nil, refuse(reason)
	}
	if l.server.cfg.SecondFactor != nil {
		return nil, l.askForMore(meta)
	}
	return permissions, nil
}

// authorize asks Config.Authorize, and returns why the client may not go on;
// empty where it may.
func (l *login) authorize() (reason string) {
	if l.server.cfg.Authorize == nil {
		return ""
	}
	ctx, cancel := l.untilGone()
	defer cancel()
	err := l.server.cfg.Authorize(ctx, l.identity)
	if err == nil {
		return ""
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		l.server.log.Infof("Refusing %v the login %v: %v.", quote(l.identity.TeleportUser), quote(l.identity.Login), err)
		return refusal.Reason
	}
	l.server.log.Errorf("Refused %v the login %v, because it could not be decided what the user may do: %v", quote(l.identity.TeleportUser), quote(l.identity.Login), err)
	return reasonNotAuthorized
}

// untilGone returns a context that ends when the client has gone.
func (l *login) untilGone() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(l.server.ctx)
	go func() {
		select {
		case <-l.conn.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (l *login) checkAuthority(cert *ssh.Certificate) (telling, string) {
	read, certType := l.server.cfg.CAs.UserCAs, uint32(ssh.UserCert)
	if cert.CertType == ssh.HostCert && l.server.cfg.Hosts != nil {
		read, certType = l.server.cfg.Hosts.CAs, ssh.HostCert
	}
	cas, err := read(l.server.ctx)
	if err != nil {
		l.server.caTrouble.Happened(err)
		return untrusted, reasonCAsUnreadable
	}
	return checkAuthority(cert, cas, certType)
}

// lookup finds a login of this host, and nothing where there is no LookupUID.
func (l *login) lookup(name string) (uid uint32, found bool, err error) {
	// A name with NUL in it reaches C as the name before it, which is another.
	if l.server.cfg.LookupUID == nil || name == "" || len(name) > maxLogin || strings.ContainsAny(name, "\x00\n:/") {
		return 0, false, nil
	}
	return l.server.cfg.LookupUID(name)
}

// refused tells the audit system and the log that authentication failed; err is
// what ended it.
func (l *login) refused(err error) {
	s := l.server
	f := l.failure(err)
	if f.telling == silent {
		s.log.Debugf("A connection from %v ended before a login name was given: %v", l.conn.RemoteAddr(), quote(fmt.Sprint(err)))
		return
	}
	s.log.Infof("Refused login %v from %v (%s).", quote(f.login), l.conn.RemoteAddr(), describe(f))

	event := auditd.Event{
		Result:       auditd.Failed,
		SystemUser:   cut(f.login, maxEventName),
		TeleportUser: cut(f.person, maxEventName),
		ConnAddress:  l.conn.RemoteAddr().String(),
		Reason:       f.reason,
	}
	// A failed lookup leaves the uid out: the refusal is worth more.
	if uid, found, err := l.lookup(f.login); err == nil && found {
		event.UID = &uid
	}
	for _, eventType := range s.cfg.FailureEvents {
		event.Type = eventType
		// Close ends the clients' logins, and their records are due all the
		// same. What the queue cannot take it counts, and says once a minute.
		_ = s.cfg.Emitter.Emit(context.WithoutCancel(s.ctx), event)
	}
	if s.cfg.Refused != nil {
		s.cfg.Refused(Refused{
			Login: event.SystemUser, TeleportUser: event.TeleportUser, Host: f.host, Reason: f.reason,
			RemoteAddr: l.conn.RemoteAddr(), LocalAddr: l.conn.LocalAddr(),
		})
	}
}

// failure is what to report, now that err has ended the authentication.
func (l *login) failure(err error) failure {
	f := l.worst
	if l.accepted && f.telling == offered && isSignatureError(err) {
		return failure{telling: offered, login: l.acceptedLogin, reason: reasonSignature}
	}
	// A client that was cut off had no chance to say more.
	if why := l.server.whyDropped(l.conn); why != "" && (f.reason == reasonNoCertificate || f.reason == reasonNotProven || f.reason == reasonSecondFactor) {
		f.reason = why
	}
	return f
}

// isSignatureError tells whether a handshake ended because a user's signature
// did not verify: x/crypto/ssh has no error of its own for that.
func isSignatureError(err error) bool {
	return err != nil && (errors.Is(err, rsa.ErrVerification) || strings.Contains(err.Error(), "ssh: signature"))
}

// describe says for the log who was refused and why.
func describe(f failure) string {
	if f.telling == proven {
		return fmt.Sprintf("Teleport user %v: %q", quote(f.person), f.reason)
	}
	return fmt.Sprintf("%q", f.reason)
}

// quote makes a name that somebody else chose fit for a log line.
func quote(name string) string {
	if len(name) > maxLogName {
		return fmt.Sprintf("%q... (%d bytes)", name[:maxLogName], len(name))
	}
	return fmt.Sprintf("%q", name)
}
