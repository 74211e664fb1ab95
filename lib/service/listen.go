// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The sockets that the roles listen on, and the addresses by which others reach
// them.

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/gravitational/trace"
)

type listeners struct{ auth, proxy, tunnel, web, node net.Listener }

func (l *listeners) close() {
	if l == nil {
		return
	}
	for _, listener := range []net.Listener{l.auth, l.proxy, l.tunnel, l.web, l.node} {
		if listener != nil {
			_ = listener.Close()
		}
	}
}

// listen opens the sockets of all enabled roles, or none.
func (p *Process) listen() (*listeners, error) {
	l := &listeners{}
	for _, role := range []struct {
		enabled  bool
		key      string
		addr     string
		listener *net.Listener
	}{
		{p.settings.Auth.Enabled, "auth_service.listen_addr", p.settings.Auth.ListenAddr, &l.auth},
		{p.settings.Proxy.Enabled, "proxy_service.listen_addr", p.settings.Proxy.ListenAddr, &l.proxy},
		{p.settings.Proxy.Enabled, "proxy_service.tunnel_listen_addr", p.settings.Proxy.TunnelListenAddr, &l.tunnel},
		{p.settings.Proxy.Enabled, "proxy_service.web_listen_addr", p.settings.Proxy.WebListenAddr, &l.web},
		{p.settings.SSH.Enabled, "ssh_service.listen_addr", p.settings.SSH.ListenAddr, &l.node},
	} {
		if !role.enabled {
			continue
		}
		listener, err := net.Listen("tcp", role.addr)
		if err != nil {
			l.close()
			return nil, listenError(role.key, role.addr, err)
		}
		*role.listener = listener
	}
	return l, nil
}

// closeListener closes one that a server may have closed already.
func closeListener(listener net.Listener) error {
	if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return trace.Wrap(err)
	}
	return nil
}

func listenError(key, addr string, err error) error {
	_, port, _ := net.SplitHostPort(addr)
	var dnsError *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return trace.AlreadyExists("cannot listen on %s (%s): another program uses the port. Find it with ss -ltnp 'sport = :%s' and end it, or choose another port", addr, key, port)
	case errors.Is(err, os.ErrPermission):
		return trace.AccessDenied("cannot listen on %s (%s): permission denied. Run as root, or choose a port from 1024 on", addr, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return trace.BadParameter("cannot listen on %s (%s): this host does not have the address. See ip addr, or use 0.0.0.0:%s for all of them", addr, key, port)
	case errors.As(err, &dnsError):
		return trace.BadParameter("cannot listen on %s (%s): the name cannot be resolved. Use an address of this host, or 0.0.0.0:%s for all of them", addr, key, port)
	}
	var opError *net.OpError
	if errors.As(err, &opError) {
		err = opError.Err
	}
	return trace.Errorf("cannot listen on %s (%s): %v. Choose another address", addr, key, err)
}

// maxAddresses bounds the addresses of a certificate. A host with more has
// containers, which nobody reaches teleport by.
const maxAddresses = 100

// servedAddresses lists the IP addresses at which a listener can be reached.
// Link-local ones are left out: they need a zone, and no certificate has one.
func servedAddresses(listener net.Addr) []string {
	bound := addrOf(listener)
	if bound.IsValid() && !bound.IsUnspecified() {
		return []string{bound.WithZone("").String()}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // the names still work
	}
	var served []string
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr.String())
		if err != nil || prefix.Addr().IsLinkLocalUnicast() || len(served) == maxAddresses {
			continue
		}
		served = append(served, prefix.Addr().Unmap().String())
	}
	return served
}

// advertised is the address by which a proxy reaches the node: the one that it
// listens on, or where that is every address, one that leads to this host.
func advertised(listener net.Addr, sameProcess bool) string {
	bound := addrOf(listener)
	_, port, err := net.SplitHostPort(listener.String())
	if err != nil || bound.IsValid() && !bound.IsUnspecified() {
		return listener.String()
	}
	host := "127.0.0.1"
	if !sameProcess {
		for _, served := range servedAddresses(listener) {
			if ip, err := netip.ParseAddr(served); err == nil && ip.IsGlobalUnicast() && !ip.IsLoopback() {
				host = served
				break
			}
		}
	}
	return net.JoinHostPort(host, port)
}

func addrOf(listener net.Addr) netip.Addr {
	tcp, ok := listener.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}
