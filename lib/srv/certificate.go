// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

// rolesExtension is the certificate extension in which Teleport keeps the names
// of a user's roles.
const rolesExtension = "teleport-roles"

// traitsExtension is the one in which it keeps what an identity provider says of
// the user.
const traitsExtension = "teleport-traits"

// roleExtension is the one of a host's certificate that says what the host is.
const roleExtension = "x-teleport-role"

const (
	// maxTraits bounds the traits of a certificate, and maxTraitValues the
	// values of all of them together.
	maxTraits      = 256
	maxTraitValues = 4096
)

// The critical options that are known (OpenSSH's PROTOCOL.certkeys). Any other
// refuses the certificate, as the format demands.
const (
	forceCommandOption  = "force-command"
	sourceAddressOption = "source-address"
)

// lastSecond is the end of the year 9999. What is valid longer never ends, and does
// not overflow the arithmetic of times.
const lastSecond = 253402300799

// maxRoles bounds the roles of a certificate.
const maxRoles = 1000

// maxOptionName is how much of a critical option's name a reason quotes.
const maxOptionName = 64

// Identity is what a checked certificate says about its owner.
type Identity struct {
	// Login is the user name on the host that was asked for.
	Login string
	// UID is the login's, where Config.LookupUID is set.
	UID uint32
	// TeleportUser is the person: the certificate's key id. It may hold any
	// bytes.
	TeleportUser string
	// HostID is the host's unique id, where a host of Config.Hosts has logged in
	// and no person. It is the Login then, and TeleportUser is empty.
	HostID string
	// Roles are those that the certificate carries; nil where it says nothing of
	// roles, and not nil where it says that there are none. Names may hold any
	// bytes.
	Roles []string
	// Traits are those that the certificate carries, by name; nil where it
	// carries none. Names and values may hold any bytes.
	Traits map[string][]string
	// Principals are the logins that the certificate names.
	Principals []string
	// Serial is the certificate's serial number.
	Serial uint64
	// CA is the authority's fingerprint, as ssh-keygen -l prints it.
	CA string
	// ValidBefore is when the certificate ends; zero where it never does.
	ValidBefore time.Time
	// ForceCommand is run instead of whatever the client asks for; empty for
	// none.
	ForceCommand string
	// PermitPTY and the others are the certificate's extensions of these names.
	PermitPTY             bool
	PermitPortForwarding  bool
	PermitAgentForwarding bool
	PermitX11Forwarding   bool
	PermitUserRC          bool
}

// checkAuthority tells why cert is not the word of one of the authorities cas,
// with how telling that is, or returns an empty reason. It looks at nothing
// that depends on the person: whether the client holds the key is not known yet.
// certType is ssh.UserCert or ssh.HostCert.
func checkAuthority(cert *ssh.Certificate, cas []ssh.PublicKey, certType uint32) (telling, string) {
	authority := cert.SignatureKey.Marshal()
	if !slices.ContainsFunc(cas, func(ca ssh.PublicKey) bool {
		return bytes.Equal(ca.Marshal(), authority)
	}) {
		return untrusted, reasonUntrusted
	}
	switch {
	case isShortRSA(cert.SignatureKey):
		return untrusted, reasonShortCA
	case !slices.Contains(signatureAlgorithms(), cert.Signature.Format):
		return untrusted, reasonCAAlgorithm
	case !isSignedByAuthority(cert):
		return untrusted, reasonForged
	case cert.CertType != certType && certType == ssh.HostCert:
		return offered, reasonNotHostCert
	case cert.CertType != certType:
		return offered, reasonNotUserCert
	case !isKeyType(cert.Key.Type()):
		return plainKey, reasonAlgorithm
	case isShortRSA(cert.Key):
		return offered, reasonShortKey
	}
	return offered, ""
}

// isSignedByAuthority verifies the authority's signature, which covers all of
// the certificate before it (PROTOCOL.certkeys). An authority on a security key
// must have been touched for it.
func isSignedByAuthority(cert *ssh.Certificate) bool {
	unsigned := *cert
	unsigned.Signature = nil
	body := unsigned.Marshal()
	// Marshal ends with the length of the signature that is not there.
	return cert.SignatureKey.Verify(body[:len(body)-4], cert.Signature) == nil
}

// checkPerson tells why the owner of cert may not log in as login from remote
// now, or returns an empty reason.
func checkPerson(cert *ssh.Certificate, login string, remote net.Addr, now time.Time) string {
	if reason := checkTimes(cert, now); reason != "" {
		return reason
	}
	switch {
	case len(cert.ValidPrincipals) == 0:
		// The format means "everybody" by this. Nobody who signs for people
		// wants that, and OpenSSH's server refuses it as well.
		return reasonNoPrincipals
	case login == "" || !slices.Contains(cert.ValidPrincipals, login):
		return reasonPrincipal
	}
	// In order of name, so that the same certificate gives the same reason.
	for _, name := range slices.Sorted(maps.Keys(cert.CriticalOptions)) {
		value := cert.CriticalOptions[name]
		switch name {
		case forceCommandOption:
			if value == "" {
				return reasonEmptyForceCommand
			}
		case sourceAddressOption:
			allowed, err := parseSourceAddress(value)
			if err != nil {
				return reasonBadSourceAddress
			}
			if !allowsAddress(allowed, remote) {
				return reasonSourceAddress
			}
		default:
			return fmt.Sprintf("critical-option-%s-is-not-supported", cut(name, maxOptionName))
		}
	}
	return ""
}

// checkTimes tells why cert is not valid now, or returns an empty reason.
func checkTimes(cert *ssh.Certificate, now time.Time) string {
	// The times are unsigned: those past 2^63 are far in the future.
	seconds := uint64(max(now.Unix(), 0))
	switch {
	case seconds < cert.ValidAfter:
		return reasonNotYetValid
	case seconds >= cert.ValidBefore && cert.ValidBefore != ssh.CertTimeInfinity:
		return reasonExpired
	}
	return ""
}

// checkHost tells why the host that logs in as login with cert is none of hosts,
// or returns an empty reason.
func checkHost(cert *ssh.Certificate, hosts *Hosts, login string) string {
	switch {
	case cert.KeyId != login+"."+hosts.ClusterName:
		return reasonHostID
	case cert.Extensions[roleExtension] != hosts.Role:
		return reasonHostRole
	}
	return ""
}

// CheckHostCert tells why cert is not the certificate of a host with this role
// ("Node", "Proxy") that one of cas has signed and that is valid now, with
// trace.AccessDenied. Whether the host holds the key, and which host it is, is up
// to the caller.
func CheckHostCert(cert *ssh.Certificate, cas []ssh.PublicKey, role string, now time.Time) error {
	_, reason := checkAuthority(cert, cas, ssh.HostCert)
	if reason == "" {
		reason = checkTimes(cert, now)
	}
	if reason == "" && cert.Extensions[roleExtension] != role {
		reason = reasonHostRole
	}
	if reason == "" && len(cert.CriticalOptions) > 0 {
		reason = reasonHostOptions
	}
	if reason != "" {
		return trace.AccessDenied("%s", reason)
	}
	return nil
}

// parseSourceAddress reads the value of source-address: addresses and CIDR
// blocks with commas between them. As in OpenSSH, a block with bits beyond its
// mask is an error: whoever wrote it may have meant another one.
func parseSourceAddress(value string) ([]netip.Prefix, error) {
	var allowed []netip.Prefix
	for entry := range strings.SplitSeq(value, ",") {
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			addr, err := netip.ParseAddr(entry)
			if err != nil || addr.Zone() != "" {
				return nil, trace.BadParameter("%q is neither an IP address nor a CIDR block", entry)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix != prefix.Masked() {
			return nil, trace.BadParameter("%q has bits set beyond its mask", entry)
		}
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		allowed = append(allowed, prefix)
	}
	return allowed, nil
}

// allowsAddress tells whether remote is among allowed. What has no IP address
// never is.
func allowsAddress(allowed []netip.Prefix, remote net.Addr) bool {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// identify reads a checked certificate. unreadable are the extensions that cannot
// be read, by name; the rest of the Identity is good.
func identify(cert *ssh.Certificate, login string, uid uint32) (_ Identity, unreadable map[string]error) {
	permits := func(name string) bool {
		_, ok := cert.Extensions[name]
		return ok
	}
	identity := Identity{
		Login:                 login,
		UID:                   uid,
		TeleportUser:          cert.KeyId,
		Principals:            cert.ValidPrincipals,
		Serial:                cert.Serial,
		CA:                    ssh.FingerprintSHA256(cert.SignatureKey),
		ForceCommand:          cert.CriticalOptions[forceCommandOption],
		PermitPTY:             permits("permit-pty"),
		PermitPortForwarding:  permits("permit-port-forwarding"),
		PermitAgentForwarding: permits("permit-agent-forwarding"),
		PermitX11Forwarding:   permits("permit-X11-forwarding"),
		PermitUserRC:          permits("permit-user-rc"),
	}
	if cert.ValidBefore <= lastSecond {
		identity.ValidBefore = time.Unix(int64(cert.ValidBefore), 0)
	}
	unreadable = make(map[string]error)
	if value, ok := cert.Extensions[rolesExtension]; ok {
		var err error
		if identity.Roles, err = parseRoles(value); err != nil {
			unreadable[rolesExtension] = err
		}
	}
	if value, ok := cert.Extensions[traitsExtension]; ok {
		var err error
		if identity.Traits, err = parseTraits(value); err != nil {
			unreadable[traitsExtension] = err
		}
	}
	return identity, unreadable
}

// parseRoles reads the value of rolesExtension.
func parseRoles(value string) ([]string, error) {
	var roles struct {
		Version string   `json:"version"`
		Roles   []string `json:"roles"`
	}
	if err := json.Unmarshal([]byte(value), &roles); err != nil {
		return nil, trace.BadParameter("it is not the JSON that was expected")
	}
	if roles.Version != "v1" {
		return nil, trace.BadParameter("its version is %q, and only v1 is known", cut(roles.Version, maxOptionName))
	}
	if len(roles.Roles) > maxRoles {
		return nil, trace.BadParameter("it has %d roles, and may have %d", len(roles.Roles), maxRoles)
	}
	// A list that is empty or missing is a list all the same.
	return append([]string{}, roles.Roles...), nil
}

// parseTraits reads the value of traitsExtension: lists of strings by name.
func parseTraits(value string) (map[string][]string, error) {
	var traits map[string][]string
	if err := json.Unmarshal([]byte(value), &traits); err != nil {
		return nil, trace.BadParameter("it is not the JSON that was expected")
	}
	values := 0
	for _, list := range traits {
		values += len(list)
	}
	if len(traits) > maxTraits || values > maxTraitValues {
		return nil, trace.BadParameter("it has %d traits with %d values, and may have %d with %d", len(traits), values, maxTraits, maxTraitValues)
	}
	return traits, nil
}

// cut returns at most n bytes of s.
func cut(s string, n int) string {
	return s[:min(len(s), n)]
}
