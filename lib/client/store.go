// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The folder of profiles, ~/.tsh. Its layout is that of Teleport's api module,
// whose client.LoadProfile reads it.

package client

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/profile"
	"github.com/gravitational/teleport/api/utils/keypaths"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/disk"
)

const (
	markerAuthority = "cert-authority"
	lockFile        = ".lock"
	folderMode      = 0o700
	fileMode        = 0o600
)

// Store is a folder of profiles. Several programs may use it at once.
type Store struct {
	dir   string
	clock clockwork.Clock
}

// NewStore returns the store in dir, which need not exist. The empty dir is
// ~/.tsh.
func NewStore(dir string, clock clockwork.Clock) (*Store, error) {
	dir, err := filepath.Abs(profile.FullProfilePath(dir))
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	return &Store{dir: dir, clock: clock}, nil
}

// Dir is the folder.
func (s *Store) Dir() string { return s.dir }

// notLoggedIn is what every command says that needs a login.
func notLoggedIn(proxy string) error {
	if proxy == "" {
		proxy = "HOST"
	}
	return trace.NotFound("not logged in: tsh login --proxy=%s", proxy)
}

// Load returns the profile of the proxy that is named, by host or host:port, or
// the current one where proxy is empty. The login may have expired. The error is
// trace.NotFound where there is none, with what to do about it.
func (s *Store) Load(proxy string) (*Profile, error) {
	name := ""
	if proxy != "" {
		addr, err := ParseProxy(proxy)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		name = profileName(addr)
	}
	p, err := profile.FromDir(s.dir, name)
	if err == nil {
		err = s.checkProfile(p)
	}
	if trace.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
		return nil, notLoggedIn(proxy)
	}
	if err != nil {
		return nil, trace.BadParameter("the profile in %s cannot be read: %v", s.dir, err)
	}
	loaded, err := newProfile(p)
	if trace.IsNotFound(err) {
		return nil, notLoggedIn(p.WebProxyAddr)
	}
	return loaded, trace.Wrap(err)
}

// checkProfile keeps what a file says from leading out of the folder.
func (s *Store) checkProfile(p *profile.Profile) error {
	if err := checkHost("name of the proxy", p.Name()); err != nil {
		return trace.Wrap(err)
	}
	if err := checkUser(p.Username); err != nil {
		return trace.Wrap(err)
	}
	return checkHost("name of the cluster", p.SiteName)
}

// LoadValid is Load for who needs a login that has not expired. One that has is
// trace.NotFound as well.
func (s *Store) LoadValid(proxy string) (*Profile, error) {
	p, err := s.Load(proxy)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if until := p.ValidUntil(); !s.clock.Now().Before(until) {
		return nil, trace.NotFound("not logged in: tsh login --proxy=%s (the login of %s expired at %s)",
			p.WebProxyAddr, Clean(p.Username), until.Format(time.DateTime+" MST"))
	}
	return p, nil
}

// LoadCluster is LoadValid by the name of a cluster: the current profile's, or
// that of the one profile that is of this cluster.
func (s *Store) LoadCluster(cluster string) (*Profile, error) {
	if current, err := s.Load(""); err == nil && current.SiteName == cluster {
		return s.LoadValid("")
	}
	names, err := s.names()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	for _, name := range names {
		if p, err := profile.FromDir(s.dir, name); err == nil && p.SiteName == cluster {
			return s.LoadValid(p.WebProxyAddr)
		}
	}
	return nil, trace.NotFound("not logged in: tsh login --proxy=HOST (there is no login for the cluster %q)", cluster)
}

// List returns the profiles that can be read, the current one first where there
// is one, and whether there is one.
func (s *Store) List() (profiles []*Profile, hasCurrent bool, err error) {
	names, err := s.names()
	if err != nil {
		return nil, false, trace.Wrap(err)
	}
	current, err := profile.GetCurrentProfileName(s.dir)
	if err != nil && !trace.IsNotFound(err) {
		return nil, false, trace.Wrap(err)
	}
	for _, name := range names {
		p, err := profile.FromDir(s.dir, name)
		if err != nil || s.checkProfile(p) != nil {
			continue
		}
		loaded, err := newProfile(p)
		if err != nil {
			continue
		}
		if name == current {
			profiles, hasCurrent = slices.Insert(profiles, 0, loaded), true
		} else {
			profiles = append(profiles, loaded)
		}
	}
	return profiles, hasCurrent, nil
}

// Broken returns the profiles that List leaves out, since their certificates
// cannot be read. They are good for Remove alone.
func (s *Store) Broken() ([]*Profile, error) {
	names, err := s.names()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var broken []*Profile
	for _, name := range names {
		p, err := profile.FromDir(s.dir, name)
		if err != nil || s.checkProfile(p) != nil {
			continue
		}
		if _, err := newProfile(p); err != nil {
			broken = append(broken, &Profile{Profile: p})
		}
	}
	return broken, nil
}

func (s *Store) names() ([]string, error) {
	names, err := profile.ListProfileNames(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, trace.Wrap(err)
}

// Select makes p the current profile.
func (s *Store) Select(p *Profile) error {
	unlock, err := s.lock()
	if err != nil {
		return trace.Wrap(err)
	}
	defer unlock()
	return s.setCurrent(p.Name())
}

func (s *Store) setCurrent(name string) error {
	return writeFile(keypaths.CurrentProfileFilePath(s.dir), []byte(name+"\n"))
}

// Save keeps a login and makes it the current one. An earlier login at the same
// proxy is replaced, whoever's it was.
func (s *Store) Save(login *Login) (*Profile, error) {
	p := &profile.Profile{
		WebProxyAddr: login.WebAddr,
		SSHProxyAddr: login.SSHAddr,
		Username:     login.User,
		SiteName:     login.Cluster,
		Dir:          s.dir,
	}
	if err := s.checkProfile(p); err != nil {
		return nil, trace.Wrap(err)
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	defer unlock()
	if err := s.saveKeys(p, login); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.trust(p.Name(), p.SiteName, login.SSHHostCAs); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.saveProfile(p); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.setCurrent(p.Name()); err != nil {
		return nil, trace.Wrap(err)
	}
	return newProfile(p)
}

// saveKeys puts a new folder of keys in the place of the old one, so that nobody
// finds a key beside a certificate of another.
func (s *Store) saveKeys(p *profile.Profile, login *Login) error {
	if err := os.MkdirAll(p.KeyDir(), folderMode); err != nil {
		return trace.ConvertSystemError(err)
	}
	staging, err := os.MkdirTemp(p.KeyDir(), ".new-*")
	if err != nil {
		return trace.ConvertSystemError(err)
	}
	defer os.RemoveAll(staging) //nolint:errcheck // what is left does no harm

	private, err := login.SSHKey.MarshalSSHPrivateKey()
	if err != nil {
		return trace.Wrap(err)
	}
	for path, content := range map[string][]byte{
		p.UserSSHKeyPath():             private,
		p.SSHCertPath():                login.SSHCert,
		p.UserTLSKeyPath():             login.TLSKey.PrivateKeyPEM(),
		p.TLSCertPath():                login.TLSCert,
		p.TLSCAPathCluster(p.SiteName): slices.Concat(login.TLSHostCAs...),
		keypaths.PublicKeyPath(p.Dir, p.Name(), p.Username): login.SSHKey.MarshalSSHPublicKey(),
	} {
		inside, err := filepath.Rel(p.ProxyKeyDir(), path)
		if err != nil {
			return trace.Wrap(err)
		}
		path = filepath.Join(staging, inside)
		if err := os.MkdirAll(filepath.Dir(path), folderMode); err != nil {
			return trace.ConvertSystemError(err)
		}
		if err := writeFile(path, content); err != nil {
			return trace.Wrap(err)
		}
	}
	return swap(staging, p.ProxyKeyDir())
}

// swap makes the folder from be what is at to, and the other way round.
func swap(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return trace.ConvertSystemError(os.Rename(from, to))
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS):
		return trace.ConvertSystemError(err)
	}
	// A filesystem that cannot exchange, such as some over the network.
	old := from + "-old"
	if err := os.Rename(to, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return trace.ConvertSystemError(err)
	}
	if err := os.Rename(from, to); err != nil {
		return trace.ConvertSystemError(err)
	}
	return trace.ConvertSystemError(os.RemoveAll(old))
}

// saveProfile writes the file through the api module, and gives it the mode and
// the atomicity that the module does not.
func (s *Store) saveProfile(p *profile.Profile) error {
	staging, err := os.MkdirTemp(s.dir, ".new-*")
	if err != nil {
		return trace.ConvertSystemError(err)
	}
	defer os.RemoveAll(staging) //nolint:errcheck // what is left does no harm
	copied := p.Copy()
	copied.Dir = ""
	if err := copied.SaveToDir(staging, false); err != nil {
		return trace.Wrap(err)
	}
	written := keypaths.ProfileFilePath(staging, p.Name())
	if err := os.Chmod(written, fileMode); err != nil {
		return trace.ConvertSystemError(err)
	}
	return trace.ConvertSystemError(os.Rename(written, keypaths.ProfileFilePath(s.dir, p.Name())))
}

// trust writes the host authorities of a login into known_hosts, in place of those
// that stood there for its proxy; nil takes them away. Those of other proxies stay,
// also of the same cluster: that it is the same is this proxy's word alone.
func (s *Store) trust(proxy, cluster string, authorities []ssh.PublicKey) error {
	path := keypaths.KnownHostsPath(s.dir)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return trace.ConvertSystemError(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if named := authorityNames(line); len(named) == 0 || named[0] != proxy {
			lines = append(lines, strings.TrimRight(line, "\n")+"\n")
		}
	}
	// Whom the authority may sign for: the proxy, the cluster, and all in it.
	names := []string{proxy}
	for _, name := range []string{cluster, "*." + cluster} {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, key := range authorities {
		lines = append(lines, "@"+markerAuthority+" "+strings.Join(names, ",")+" "+string(ssh.MarshalAuthorizedKey(key)))
	}
	return writeFile(path, []byte(strings.Join(lines, "")))
}

// authorityNames are whom a line of known_hosts lets an authority sign for; nil
// for any other line.
func authorityNames(line string) []string {
	fields := strings.Fields(line)
	if len(fields) < 3 || fields[0] != "@"+markerAuthority {
		return nil
	}
	return strings.Split(fields[1], ",")
}

// Remove forgets a login: its keys, its certificates, and whom it made trusted.
func (s *Store) Remove(p *Profile) error {
	unlock, err := s.lock()
	if err != nil {
		return trace.Wrap(err)
	}
	defer unlock()
	if err := os.RemoveAll(p.ProxyKeyDir()); err != nil {
		return trace.ConvertSystemError(err)
	}
	if err := profile.RemoveProfile(s.dir, p.Name()); err != nil && !trace.IsNotFound(err) {
		return trace.Wrap(err)
	}
	if err := s.trust(p.Name(), p.SiteName, nil); err != nil {
		return trace.Wrap(err)
	}
	current, err := profile.GetCurrentProfileName(s.dir)
	if err == nil && current == p.Name() {
		err = os.Remove(keypaths.CurrentProfileFilePath(s.dir))
	}
	if err != nil && !trace.IsNotFound(err) {
		return trace.ConvertSystemError(err)
	}
	return nil
}

// lock keeps two logins from writing at once.
func (s *Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, folderMode); err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	// It may be older, and others' to read.
	if err := os.Chmod(s.dir, folderMode); err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	file, err := os.OpenFile(filepath.Join(s.dir, lockFile), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, trace.ConvertSystemError(err)
	}
	return func() { _ = file.Close() }, nil
}

// writeFile writes all of a file or nothing, for its owner alone.
func writeFile(path string, content []byte) error {
	return trace.ConvertSystemError(disk.Replace(path, content, 0o600))
}

// profileName is what the api module calls the profile of a proxy.
func profileName(addr string) string {
	return (&profile.Profile{WebProxyAddr: addr}).Name()
}

// checkUser takes what may be the name of a key.
func checkUser(user string) error {
	if err := checkFileName("user name", user); err != nil {
		return trace.Wrap(err)
	}
	if user == "cas" || user == "certs.pem" {
		return trace.BadParameter("the user name %q cannot be the name of a key, since the folder of keys has a file of this name", user)
	}
	return nil
}
