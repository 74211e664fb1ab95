//go:build deps

package deps

import (
	_ "github.com/alecthomas/kingpin/v2"
	_ "github.com/creack/pty"
	_ "github.com/elastic/go-libaudit/v2"
	_ "github.com/elastic/go-libaudit/v2/aucoalesce"
	_ "github.com/elastic/go-libaudit/v2/auparse"
	_ "github.com/goccy/go-yaml"
	_ "github.com/google/uuid"
	_ "github.com/gravitational/teleport/api/constants"
	_ "github.com/gravitational/teleport/api/defaults"
	_ "github.com/gravitational/teleport/api/types"
	_ "github.com/gravitational/trace"
	_ "github.com/jonboulle/clockwork"
	_ "github.com/msteinert/pam/v2"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/sirupsen/logrus"
	_ "github.com/stretchr/testify/require"
	_ "golang.org/x/crypto/ssh"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "golang.org/x/text/language"
	_ "modernc.org/sqlite"
)
