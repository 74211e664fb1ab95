// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Unset is what the kernel prints for a loginuid or session id that was never
// set.
const Unset = "4294967295"

// Record is one line of an audit log.
type Record struct {
	// Type is the record type by name, such as USER_LOGIN.
	Type string
	// Serial is the event's number: the records of one event share it.
	Serial uint64
	// Kernel holds what the kernel says by itself: pid, uid, auid, ses; and for
	// kernel records everything.
	Kernel map[string]string
	// Body is a user record's text between the single quotes, as it stands.
	Body string
	// Fields are the body's fields in their order, decoded.
	Fields []Field
	// BodyErr says what is wrong with the body, where it is not clean.
	BodyErr error
	// Raw is the whole line without its line end.
	Raw string
}

// Field is one name=value of a record's body.
type Field struct{ Name, Value string }

// Get returns a field of the body, and "" where there is none.
func (r Record) Get(name string) string {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Names returns the body's field names in their order.
func (r Record) Names() []string {
	names := make([]string, len(r.Fields))
	for i, f := range r.Fields {
		names[i] = f.Name
	}
	return names
}

// String shows the record without what auditd adds.
func (r Record) String() string {
	line, _, _ := strings.Cut(r.Raw, "\x1d")
	return line
}

// ParseRecord reads one line of an audit log. It is strict on purpose: a body
// that is not a clean run of name=value, name="value" and name=HEX gets a
// BodyErr, since a lenient reader would hide what a strict one misreads.
func ParseRecord(line string) (Record, error) {
	r := Record{Raw: line, Kernel: map[string]string{}}
	// auditd puts its own reading after a group separator; old lines have none.
	line, _, _ = strings.Cut(line, "\x1d")
	rest, ok := strings.CutPrefix(line, "type=")
	if !ok {
		return r, fmt.Errorf("does not begin with type=: %q", line)
	}
	var stamp string
	if r.Type, rest, ok = strings.Cut(rest, " msg=audit("); !ok {
		return r, fmt.Errorf("has no msg=audit(: %q", line)
	}
	if stamp, rest, ok = strings.Cut(rest, "): "); !ok {
		// A record without text, such as EOE or a torn line.
		stamp, _, _ = strings.Cut(rest, ")")
		rest = ""
	}
	_, serial, _ := strings.Cut(stamp, ":")
	var err error
	if r.Serial, err = strconv.ParseUint(serial, 10, 64); err != nil {
		return r, fmt.Errorf("has no event number: %q", line)
	}
	kernel := rest
	if head, body, found := strings.Cut(rest, " msg='"); found {
		kernel = head
		if r.Body, ok = strings.CutSuffix(body, "'"); !ok {
			r.BodyErr = fmt.Errorf("the body does not end")
		} else {
			r.Fields, r.BodyErr = parseBody(r.Body)
		}
	}
	for _, word := range strings.Fields(kernel) {
		if name, value, found := strings.Cut(word, "="); found {
			r.Kernel[name] = strings.Trim(value, `"`)
		}
	}
	return r, nil
}

// encoded names the fields that may stand quoted or in hex.
var encoded = map[string]bool{"acct": true, "exe": true, "reason": true, "teleportUser": true, "cmd": true}

func parseBody(body string) ([]Field, error) {
	var fields []Field
	for rest := body; rest != ""; {
		name, after, ok := strings.Cut(rest, "=")
		if !ok || name == "" || strings.ContainsAny(name, " \"") {
			return fields, fmt.Errorf("not a name=value at %q", rest)
		}
		var value string
		if strings.HasPrefix(after, `"`) {
			end := strings.IndexByte(after[1:], '"')
			if end < 0 {
				return fields, fmt.Errorf("a quote is not closed at %q", rest)
			}
			value, rest = after[1:1+end], after[2+end:]
			if rest != "" && rest[0] != ' ' {
				return fields, fmt.Errorf("something stands after a closed quote at %q", rest)
			}
		} else {
			value, rest, ok = strings.Cut(after, " ")
			if ok {
				rest = " " + rest
			}
			if encoded[name] && looksHex(value) {
				raw, err := hex.DecodeString(value)
				if err != nil {
					return fields, err
				}
				value = string(raw)
			}
		}
		fields = append(fields, Field{name, value})
		if rest != "" {
			rest = rest[1:]
			if rest == "" {
				return fields, fmt.Errorf("a space stands at the end of %q", body)
			}
		}
	}
	return fields, nil
}

// looksHex is what makes the audit tools decode a bare value.
func looksHex(s string) bool {
	if s == "" || len(s)%2 != 0 {
		return false
	}
	return strings.Trim(s, "0123456789ABCDEFabcdef") == ""
}

// ParseLog reads the whole lines of an audit log; a last line that is still
// being written is left out.
func ParseLog(text []byte) ([]Record, error) {
	end := bytes.LastIndexByte(text, '\n')
	if end < 0 {
		return nil, nil
	}
	var records []Record
	for _, line := range strings.Split(string(text[:end]), "\n") {
		if line == "" {
			continue
		}
		r, err := ParseRecord(line)
		if err != nil {
			return records, err
		}
		records = append(records, r)
	}
	return records, nil
}

// Ours picks from records what a login by our programs caused: user records
// that they sent, and the kernel's LOGIN records of theirs, with the records of
// the same event.
func Ours(records []Record, dir string, uids ...uint32) []Record {
	auids := map[string]bool{}
	for _, uid := range uids {
		auids[strconv.FormatUint(uint64(uid), 10)] = true
	}
	events := map[uint64]bool{}
	for _, r := range records {
		switch {
		case r.BodyErr != nil && strings.Contains(r.Body, dir):
			events[r.Serial] = true
		case filepath.Dir(r.Get("exe")) == dir:
			events[r.Serial] = true
		case r.Type == "LOGIN" && auids[r.Kernel["auid"]] && r.Kernel["old-auid"] == Unset:
			events[r.Serial] = true
		}
	}
	var ours []Record
	for _, r := range records {
		if events[r.Serial] {
			ours = append(ours, r)
		}
	}
	return ours
}

// OfType picks records by type.
func OfType(records []Record, types ...string) []Record {
	var picked []Record
	for _, r := range records {
		for _, want := range types {
			if r.Type == want {
				picked = append(picked, r)
			}
		}
	}
	return picked
}

// Show prints records one a line, for messages.
func Show(records []Record) string {
	var b strings.Builder
	for _, r := range records {
		b.WriteString(r.String())
		b.WriteByte('\n')
	}
	return b.String()
}
