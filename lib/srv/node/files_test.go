// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node

import "testing"

func TestCopiesFiles(t *testing.T) {
	for command, want := range map[string]bool{
		"scp -t .":                              true,
		"scp -r -p -f -- '/a b'":                true,
		"/usr/bin/scp -rpt dir":                 true,
		"scp -v -d -t /":                        true,
		"rsync --server -logDtpre.iLsfxCIvu . ": true,
		"/usr/lib/openssh/sftp-server -R":       true,
		"internal-sftp":                         true,
		"  scp\t-t x":                           true,
		"scp file other:":                       false,
		"scp -i key -o ProxyCommand=ft a b:":    false,
		"scp":                                   false,
		"rsync -a x y":                          false,
		"echo scp -t":                           false,
		"git-upload-pack x":                     false,
		"":                                      false,
		" ":                                     false,
	} {
		if got := copiesFiles(command); got != want {
			t.Errorf("%q: %v", command, got)
		}
	}
}
