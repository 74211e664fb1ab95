// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// difference is one way in which our records are not OpenSSH's.
type difference struct {
	name, right, why string
	apply            func([]line) []line
}

const (
	oursIsRight = "ours is right"
	bothRight   = "both are right"
)

// apply turns sshd's records into what ours must be.
func apply(t *testing.T, differences []difference, theirs []line) []line {
	t.Helper()
	now := slices.Clone(theirs)
	for _, d := range differences {
		changed := d.apply(slices.Clone(now))
		assert.NotEqual(t, now, changed, "there is no such difference here: %s", d.name)
		now = changed
	}
	return now
}

// where finds the first line that fits, and ends at len(lines) without one.
func where(lines []line, fits func(line) bool) int {
	if i := slices.IndexFunc(lines, fits); i >= 0 {
		return i
	}
	return len(lines)
}

func isFailure(l line) bool { return l.record == "USER_LOGIN" && l.res == "failed" }
func isSuccess(l line) bool { return l.record == "USER_LOGIN" && l.res == "success" }
func isCommand(l line) bool { return l.record == commandLine }

// session is a record of ours of a login: what stands in it follows the kernel's
// LOGIN record.
func session(lines []line, record, op, res, more string) line {
	login := lines[where(lines, func(l line) bool { return l.record == "LOGIN" })]
	return line{
		record: record, op: op, acct: login.auid, id: login.auid, auid: login.auid, ses: login.ses, process: login.process,
		hostname: "127.0.0.1", terminal: "teleport", res: res, more: more,
	}
}

var keyFailed = difference{
	"A key that was offered before the certificate is no failed login", oursIsRight,
	"`ssh -i KEY` offers the bare key first and then the certificate beside it. sshd writes a failed USER_LOGIN for the first, " +
		"so each good login is one in `aulast --bad` and `aureport -l --failed` as well. A login has failed when the connection ends without one.",
	func(lines []line) []line {
		if i := where(lines, isFailure); i < len(lines) {
			lines = slices.Delete(lines, i, i+1)
		}
		return lines
	},
}

var nothingTold = difference{
	"A connection that asks for nothing is no login", "OpenSSH tells more, with PAM on",
	"A login begins here with the first shell, command, subsystem or forwarding, as does its process; the daemon's log alone knows who was there before. " +
		"sshd runs the PAM stack as soon as the user is known; without PAM it tells nothing either.",
	func([]line) []line { return nil },
}

var oneSetcred = difference{
	"One process asks PAM for credentials", bothRight,
	"sshd's half that runs as the user asks PAM a second time, from a process of its own. Ours has one process that owns the login, and the commands are forked from it.",
	func(lines []line) []line {
		return slices.DeleteFunc(lines, func(l line) bool { return l.record == "CRED_ACQ" && l.process != "1" })
	},
}

var successTold = difference{
	"A login without a terminal is a login", oursIsRight,
	"sshd writes USER_LOGIN success where it gives out a terminal and not otherwise: commands, scp, rsync and Ansible are in no `aulast` and no `aureport -l`, whatever they did.",
	func(lines []line) []line {
		i := where(lines, func(l line) bool { return l.record == "USER_START" })
		if i == len(lines) {
			i = where(lines, isCommand)
		} else {
			i++
		}
		return slices.Insert(lines, i, session(lines, "USER_LOGIN", "login", "success", "teleportUser=alice"))
	},
}

var successNamed = difference{
	"USER_LOGIN success has the login's name and the person's", oursIsRight,
	"sshd's has the uid alone, which says little on another host; ours has both, so that `aulast`, which wants the uid, and a reader, who wants the name, are served.",
	func(lines []line) []line {
		for i := range lines {
			if isSuccess(lines[i]) {
				lines[i].acct, lines[i].more = lines[i].id, "teleportUser=alice"
			}
		}
		return lines
	},
}

var endTold = difference{
	"The end has a record of its own", oursIsRight,
	"It is the pair of our USER_LOGIN, with its process, session, terminal and person, and closes the login in `aulast`. With PAM off sshd tells no end at all.",
	func(lines []line) []line {
		i := where(lines, func(l line) bool { return l.record == "USER_END" })
		if i == len(lines) {
			i = where(lines, isCommand)
		}
		end := session(lines, "USER_END", "session_close", "success", "teleportUser=alice")
		end.terminal = lines[where(lines, isSuccess)].terminal
		return slices.Insert(lines, i, end)
	},
}

var pamTerminal = difference{
	"PAM knows the terminal", oursIsRight,
	"sshd runs the PAM stack before there is a terminal and calls all of them `ssh`. Ours gives it the terminal's name, and `ssh` where there is none. " +
		"A module that is set up for the word, as pam_time and pam_access may be, does not find it on a terminal.",
	func(lines []line) []line {
		for i := range lines {
			if strings.HasPrefix(lines[i].op, "PAM:") {
				lines[i].terminal = "/dev/pts/N"
			}
		}
		return lines
	},
}

var loginUID = difference{
	"PAM is off, and there is an audit session all the same", oursIsRight,
	"sshd leaves the login uid to pam_loginuid. Without PAM nothing that the user does, by whatever rule it is recorded, can be told to be this login's, and `ausearch --session` finds nothing.",
	func(lines []line) []line {
		for i := range lines {
			lines[i].auid, lines[i].ses = "bob", "A"
		}
		return slices.Insert(lines, 0, line{record: "LOGIN", auid: "bob", ses: "A", process: "1", res: "1"})
	},
}

var once = difference{
	"One refusal is one failed login", oursIsRight,
	"sshd writes one for each key that it refuses, and up to two for a login that it does not know. Here, who counts failures counts connections.",
	func(lines []line) []line {
		first := where(lines, isFailure)
		kept := slices.DeleteFunc(lines[min(first+1, len(lines)):], isFailure)
		return slices.Concat(lines[:min(first+1, len(lines))], kept)
	},
}

// unhidden puts back the name that sshd hides.
func unhidden(name string) difference {
	return difference{
		"The login that was tried is told", oursIsRight,
		"sshd writes `(invalid user)`, lest a password that somebody typed in the wrong place is read in a log. There are no passwords here, and the name is what an auditor asks for first.",
		func(lines []line) []line {
			for i := range lines {
				if lines[i].acct == "(invalid user)" {
					lines[i].acct = name
				}
			}
			return lines
		},
	}
}

// told is what a failed login says beyond sshd's. The id is empty for somebody
// whom the host does not have.
func told(id, more string) difference {
	return difference{
		"A failed login says who and why", oursIsRight,
		"sshd's has neither host nor uid nor reason, and never the person, even where the certificate was good. Ours has all of them; the person only where a trusted authority has signed the name. " +
			"The word for no terminal is `teleport` in place of `sshd`.",
		func(lines []line) []line {
			for i := range lines {
				if isFailure(lines[i]) {
					lines[i].id, lines[i].hostname, lines[i].terminal, lines[i].more = id, "127.0.0.1", "teleport", more
				}
			}
			return lines
		},
	}
}

var userErr = difference{
	"USER_ERR names who was refused", oursIsRight,
	"sshd's comes from libpam, whose transaction was begun for nobody and is given up (`bad_ident`), and without PAM there is none. Ours is the second of a pair, and comes with PAM on or off.",
	func(lines []line) []line {
		lines = slices.DeleteFunc(lines, func(l line) bool { return l.op == "PAM:bad_ident" })
		i := where(lines, isFailure)
		if i == len(lines) {
			return lines
		}
		second := lines[i]
		second.record, second.op = "USER_ERR", "invalid_user"
		return slices.Insert(lines, i+1, second)
	},
}

var sessionRefused = difference{
	"A login that PAM's session stack refuses is a failed login", oursIsRight,
	"sshd ends the command before it begins and writes no USER_LOGIN at all; who reads USER_LOGIN alone sees nothing.",
	func(lines []line) []line {
		i := where(lines, func(l line) bool { return l.record == "USER_START" })
		const more = "teleportUser=alice reason=pam-session"
		return slices.Insert(lines, i+1, session(lines, "USER_LOGIN", "login", "failed", more), session(lines, "USER_ERR", "invalid_user", "failed", more))
	},
}

var lockedLetIn = difference{
	"With PAM off, a locked password keeps nobody out who has a certificate", "OpenSSH is the stricter",
	"Without PAM sshd takes a `!` before the password hash for a locked account, refuses it, and hides its name. Here the certificate decides. " +
		"To keep an account out, expire it (`usermod --expiredate 1`) and switch PAM on, whose account stack both servers ask; with it, both let in whose password alone is locked, as above.",
	func([]line) []line {
		login := line{record: "LOGIN", auid: "carol", ses: "A", process: "1", res: "1"}
		start := session([]line{login}, "USER_LOGIN", "login", "success", "teleportUser=alice")
		end := session([]line{login}, "USER_END", "session_close", "success", "teleportUser=alice")
		return []line{login, start, end, {record: commandLine, auid: "carol", ses: "A"}}
	},
}
