// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package config

// What a value may be. The functions here return plain errors that read after
// "key: ": their callers know the key and its place.

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sirupsen/logrus"
)

const (
	maxCount     = 100000
	maxGraceTime = time.Hour
	maxKeepAlive = 24 * time.Hour
	// maxIdleTimeout is a year: whoever wants more wants never.
	maxIdleTimeout = 365 * 24 * time.Hour
	// never is client_idle_timeout's word for none.
	never = "never"
	// gatewayClient is gateway_ports' third word.
	gatewayClient = "clientspecified"
	// maxShown is how much of a stranger's text an error repeats.
	maxShown = 64
	// maxLabels and maxLabelValue keep what nodes announce small.
	maxLabels     = 256
	maxLabelValue = 1024
	// maxList bounds addresses and pins.
	maxList = 64
	// maxToken is what a name of a token may have.
	maxToken = 1024
)

// shorten quotes text for an error line, and cuts it where it is long.
func shorten(text string) string {
	if len(text) <= maxShown {
		return strconv.Quote(text)
	}
	return strconv.Quote(text[:maxShown]) + "..."
}

// parseBool takes the words that Teleport takes, in any case.
func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "yes", "yeah", "y", "true", "on", "1":
		return true, nil
	case "no", "nope", "n", "false", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("expects yes or no (true, false, on and off are taken too), not %s", shorten(text))
}

// parseListenAddr returns host:port for host:port, :port, and a host alone. An
// empty host stands for all addresses; port 0 lets the kernel choose.
func parseListenAddr(text, defaultPort string) (string, error) {
	const shape = "expects an address such as \"0.0.0.0:3022\", \":3022\" or \"[::1]:3022\""
	host, port := text, defaultPort
	switch {
	case text == "":
		return "", fmt.Errorf("%s, and is empty", shape)
	case strings.HasPrefix(text, "["):
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return "", fmt.Errorf("%s; %s has no closing bracket", shape, shorten(text))
		}
		host = text[1:end]
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return "", fmt.Errorf("%s; what stands in the brackets of %s is no IPv6 address", shape, shorten(text))
		}
		if rest := text[end+1:]; rest != "" {
			var colon bool
			if port, colon = strings.CutPrefix(rest, ":"); !colon {
				return "", fmt.Errorf("%s; in %s a colon and a port must follow the bracket", shape, shorten(text))
			}
		}
	case strings.Count(text, ":") == 1:
		host, port, _ = strings.Cut(text, ":")
	case strings.Count(text, ":") > 1:
		// Without brackets nobody can tell ::1 port 3022 from ::1:3022, so
		// this is an address alone or a mistake.
		if _, err := netip.ParseAddr(text); err != nil {
			return "", fmt.Errorf("%s; an IPv6 address with a port needs brackets, which %s does not have", shape, shorten(text))
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%s; the port %s is not a number from 0 to 65535", shape, shorten(port))
	}
	if host != "" && !strings.Contains(host, ":") {
		if err := checkHost(host); err != nil {
			return "", fmt.Errorf("%s; the host %s %w", shape, shorten(host), err)
		}
	}
	return net.JoinHostPort(host, strconv.FormatUint(number, 10)), nil
}

// parseAddr returns host:port for what others dial: as parseListenAddr, but not
// every address and not any port.
func parseAddr(text, defaultPort string) (string, error) {
	const shape = "expects an address that others can dial, such as \"auth.example.com:3025\""
	addr, err := parseListenAddr(text, defaultPort)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%s, not %s", shape, shorten(text))
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return "", fmt.Errorf("%s; %s names no host", shape, shorten(text))
	}
	if port == "0" {
		return "", fmt.Errorf("%s; %s has no port", shape, shorten(text))
	}
	return addr, nil
}

// parsePeer takes an etcd member's address, as etcd writes it too.
func parsePeer(text string) (string, error) {
	host := text
	for _, scheme := range []string{"https://", "http://"} {
		host = strings.TrimPrefix(host, scheme)
	}
	addr, err := parseAddr(host, "2379")
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(text, host) + addr, nil
}

const pinPrefix = "sha256:"

func parsePin(text string) (string, error) {
	return strings.ToLower(text), checkPin(text)
}

func checkPin(pin string) error {
	hash, ok := strings.CutPrefix(strings.ToLower(pin), pinPrefix)
	if _, err := hex.DecodeString(hash); !ok || err != nil || len(hash) != 64 {
		return fmt.Errorf("expects %s and 64 hexadecimal digits, as tctl status prints it, not %s", pinPrefix, shorten(pin))
	}
	return nil
}

// checkToken takes a token, or the path of a file of it.
func checkToken(token string) error {
	if token == "" || len(token) > maxToken {
		return fmt.Errorf("expects a token of 1 to %d characters, or the path of a file of it", maxToken)
	}
	for _, r := range token {
		if !unicode.IsPrint(r) || r == ' ' && !filepath.IsAbs(token) {
			return fmt.Errorf("a token holds neither spaces nor control characters: copy it again from what tctl tokens add printed")
		}
	}
	return nil
}

func checkStorage(kind string) error {
	if kind != StorageSQLite && kind != StorageEtcd {
		return fmt.Errorf("expects %s or %s, not %s", StorageSQLite, StorageEtcd, shorten(kind))
	}
	return nil
}

func checkEtcdPrefix(prefix string) error {
	if !strings.HasPrefix(prefix, "/") || len(prefix) < 2 || strings.HasSuffix(prefix, "/") {
		return fmt.Errorf("expects a path such as %q, from / and without one at its end, not %s", DefaultEtcdPrefix, shorten(prefix))
	}
	for _, r := range prefix {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return fmt.Errorf("may hold only printable ASCII, so not the %q of %s", r, shorten(prefix))
		}
	}
	return nil
}

func checkSecondFactor(word string) error {
	if word != SecondFactorOTP && word != SecondFactorOff {
		return fmt.Errorf("expects %s or %s, not %s", SecondFactorOTP, SecondFactorOff, shorten(word))
	}
	return nil
}

// checkHost takes an IPv4 address or a name.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if strings.Trim(host, "0123456789.") == "" {
		return fmt.Errorf("is no IPv4 address")
	}
	return checkName(host)
}

// checkName takes what can stand in a certificate as a host's or a cluster's
// name and be typed as one.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("must not be empty")
	case len(name) > 253:
		return fmt.Errorf("is longer than the 253 characters that a host name may have")
	case name[0] == '-' || name[0] == '.':
		return fmt.Errorf("must start with a letter or a digit, unlike %s", shorten(name))
	}
	for _, r := range name {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r) {
			return fmt.Errorf("may hold only letters, digits, '-', '_' and '.', so not the %q of %s", r, shorten(name))
		}
	}
	return nil
}

func checkPath(path string) error {
	if strings.ContainsRune(path, 0) {
		return fmt.Errorf("holds a NUL byte, which no path can")
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("expects a whole path, from /, not %s", shorten(path))
	}
	return nil
}

func checkLogOutput(output string) error {
	switch output {
	case "stderr", "stdout", "syslog":
		return nil
	}
	if checkPath(output) != nil {
		return fmt.Errorf("expects stderr, stdout, syslog, or a file's whole path, from /, not %s", shorten(output))
	}
	return nil
}

func checkLogFormat(format string) error {
	if format != "text" && format != "json" {
		return fmt.Errorf("expects text or json, not %s", shorten(format))
	}
	return nil
}

func parseSeverity(text string) (logrus.Level, error) {
	switch strings.ToUpper(text) {
	case "DEBUG":
		return logrus.DebugLevel, nil
	case "INFO":
		return logrus.InfoLevel, nil
	case "WARN", "WARNING":
		return logrus.WarnLevel, nil
	case "ERROR", "ERR":
		return logrus.ErrorLevel, nil
	}
	return 0, fmt.Errorf("expects DEBUG, INFO, WARN or ERROR, not %s", shorten(text))
}

func checkPAMService(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("expects the name of a file in /etc/pam.d, such as \"sshd\", not %s", shorten(name))
	}
	return nil
}

func checkCount(count int) error {
	if count < 1 || count > maxCount {
		return fmt.Errorf("expects a number from 1 to %d, not %d", maxCount, count)
	}
	return nil
}

// parseTime takes a time with its unit. also names what else the key takes.
func parseTime(text, also string) (time.Duration, error) {
	wait, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("expects a time with its unit, such as 120s or 2m%s, not %s", also, shorten(text))
	}
	return wait, nil
}

func checkTime(wait, most time.Duration, also string) error {
	if wait < time.Second || wait > most {
		return fmt.Errorf("expects a time from 1s to %v%s, not %v", most, also, wait)
	}
	return nil
}

func parseGraceTime(text string) (time.Duration, error) {
	wait, err := parseTime(text, "")
	if err != nil {
		return 0, err
	}
	return wait, checkGraceTime(wait)
}

func checkGraceTime(wait time.Duration) error { return checkTime(wait, maxGraceTime, "") }

func parseKeepAlive(text string) (time.Duration, error) {
	wait, err := parseTime(text, "")
	if err != nil {
		return 0, err
	}
	return wait, checkKeepAlive(wait)
}

func checkKeepAlive(wait time.Duration) error { return checkTime(wait, maxKeepAlive, "") }

// parseIdleTimeout returns 0 for never. A time of 0 is refused: it could mean
// never, or at once.
func parseIdleTimeout(text string) (time.Duration, error) {
	const also = ", or " + never
	if strings.EqualFold(text, never) {
		return 0, nil
	}
	wait, err := parseTime(text, also)
	if err != nil {
		return 0, err
	}
	return wait, checkTime(wait, maxIdleTimeout, also)
}

func checkIdleTimeout(wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	return checkTime(wait, maxIdleTimeout, ", or "+never)
}

func checkGatewayPorts(word string) error {
	switch word {
	case "no", "yes", gatewayClient:
		return nil
	}
	return fmt.Errorf("expects no, yes or %s, not %s", gatewayClient, shorten(word))
}

// checkLabelKey takes Teleport's shape of a label's name.
func checkLabelKey(key string) error {
	if key == "" || len(key) > maxShown {
		return fmt.Errorf("a label's name must have 1 to %d characters, unlike %s", maxShown, shorten(key))
	}
	for _, r := range key {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./:*", r) {
			return fmt.Errorf("a label's name may hold only letters, digits and -_./:*, so not the %q of %s", r, shorten(key))
		}
	}
	return nil
}

func checkLabelValue(value string) error {
	if len(value) > maxLabelValue {
		return fmt.Errorf("is longer than the %d bytes that a label may have", maxLabelValue)
	}
	for _, r := range value {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("may hold no control characters, so not the %q of %s", r, shorten(value))
		}
	}
	return nil
}
