// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package clienttest is a cluster for tests of what users do with one: a proxy
// with its web endpoints, its SSH port (lib/srv/proxy) and the way to a list of
// nodes, and nodes that are small SSH servers. It lets the user "alice" in with
// the password Password and, if OTP is set, that code.
package clienttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/teleport/api/utils/keys"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv/proxy"
	"teleport-auditd/lib/tlsca"
)

// Password is alice's.
const Password = "correct horse"

// Config is what a cluster is like.
type Config struct {
	// Name is the cluster's; "example.com" by default.
	Name string
	// OTP is the code that is asked for, if any.
	OTP string
	// Logins are alice's; "bob" and "root" by default.
	Logins []string
	// TTL, where it is set, is how long certificates last whatever is asked.
	TTL time.Duration
}

// Cluster runs until Close.
type Cluster struct {
	// Name is the cluster's name, WebAddr and SSHAddr are where its proxy is.
	Name, WebAddr, SSHAddr string
	// WebCA is the authority of the proxy's web certificate, in PEM.
	WebCA []byte

	cfg              Config
	userSSH, hostSSH ssh.Signer
	userTLS, hostTLS authority
	proxy            *proxy.Server
	closers          []func()

	mu    sync.Mutex
	nodes []types.Server
}

// authority signs TLS certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name, Organization: []string{name}},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

func (a authority) pem() []byte { return certPEM(a.cert.Raw) }

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (a authority) sign(template *x509.Certificate, public any) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Minute)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
}

// server returns a certificate for a server with the names.
func (a authority) server(names []string, ips ...net.IP) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "server"},
		NotAfter:    time.Now().Add(time.Hour),
		DNSNames:    names,
		IPAddresses: ips,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func newSigner() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

// New starts a cluster at loopback.
func New(cfg Config) (*Cluster, error) {
	if cfg.Name == "" {
		cfg.Name = "example.com"
	}
	if cfg.Logins == nil {
		cfg.Logins = []string{"bob", "root"}
	}
	c := &Cluster{Name: cfg.Name, cfg: cfg}
	if err := c.start(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start() error {
	var errs [4]error
	c.userSSH, errs[0] = newSigner()
	c.hostSSH, errs[1] = newSigner()
	c.userTLS, errs[2] = newAuthority(c.Name)
	c.hostTLS, errs[3] = newAuthority(c.Name)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if err := c.startSSH(); err != nil {
		return err
	}
	return c.startWeb()
}

// Close ends it.
func (c *Cluster) Close() {
	for _, closer := range slices.Backward(c.closers) {
		closer()
	}
	c.closers = nil
}

func (c *Cluster) listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		c.closers = append(c.closers, func() { _ = listener.Close() })
	}
	return listener, err
}

// hostKey is a host's, with a certificate of the role for the names.
func (c *Cluster) hostKey(role types.SystemRole, principals ...string) (ssh.Signer, error) {
	key, err := newSigner()
	if err != nil {
		return nil, err
	}
	cert := &ssh.Certificate{
		Key:             key.PublicKey(),
		CertType:        ssh.HostCert,
		ValidPrincipals: principals,
		ValidAfter:      uint64(time.Now().Add(-time.Minute).Unix()),
		ValidBefore:     uint64(time.Now().Add(time.Hour).Unix()),
		Permissions:     ssh.Permissions{Extensions: map[string]string{tlsca.ExtensionRole: string(role)}},
	}
	if err := cert.SignCert(rand.Reader, c.hostSSH); err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, key)
}

type discard struct{}

func (discard) Emit(context.Context, auditd.Event) error { return nil }
func (discard) Close() error                             { return nil }

// UserCAs and Nodes are what the proxy asks for.
func (c *Cluster) UserCAs(context.Context) ([]ssh.PublicKey, error) {
	return []ssh.PublicKey{c.userSSH.PublicKey()}, nil
}

// Nodes are those that were added.
func (c *Cluster) Nodes(context.Context) ([]types.Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes), nil
}

func (c *Cluster) startSSH() error {
	key, err := c.hostKey(types.RoleProxy, "127.0.0.1", "localhost", "proxy."+c.Name)
	if err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	c.proxy, err = proxy.New(proxy.Config{
		CAs:         c,
		HostSigners: func() []ssh.Signer { return []ssh.Signer{key} },
		Nodes:       c,
		ClusterName: c.Name,
		Emitter:     discard{},
		Log:         log,
	})
	if err != nil {
		return err
	}
	listener, err := c.listen()
	if err != nil {
		return err
	}
	c.SSHAddr = listener.Addr().String()
	go c.proxy.Serve(listener) //nolint:errcheck // it ends with Close
	c.closers = append(c.closers, func() { _ = c.proxy.Close() })
	return nil
}

// startWeb serves HTTPS, and gRPC to those who ask for the auth service by ALPN.
func (c *Cluster) startWeb() error {
	webCA, err := newAuthority("a web authority")
	if err != nil {
		return err
	}
	c.WebCA = webCA.pem()
	web, err := webCA.server([]string{"localhost"}, net.IPv4(127, 0, 0, 1))
	if err != nil {
		return err
	}
	auth, err := c.hostTLS.server([]string{constants.APIDomain})
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AddCert(c.userTLS.cert)
	authConfig := &tls.Config{
		Certificates: []tls.Certificate{auth},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{web},
		NextProtos:   []string{"http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, protocol := range hello.SupportedProtos {
				if strings.HasPrefix(protocol, constants.ALPNSNIAuthProtocol) {
					config := authConfig.Clone()
					config.NextProtos = []string{protocol}
					return config, nil
				}
			}
			return nil, nil
		},
	}
	listener, err := c.listen()
	if err != nil {
		return err
	}
	c.WebAddr = listener.Addr().String()
	webConns := &queue{Listener: listener, conns: make(chan net.Conn), closed: make(chan struct{})}
	apiConns := &queue{Listener: listener, conns: make(chan net.Conn), closed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /webapi/ping", c.ping)
	mux.HandleFunc("POST /webapi/ssh/certs", c.certs)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	api := grpc.NewServer()
	proto.RegisterAuthServiceServer(api, &authService{cluster: c})
	go server.Serve(webConns) //nolint:errcheck // it ends with Close
	go api.Serve(apiConns)    //nolint:errcheck // it ends with Close
	c.closers = append(c.closers, func() { _ = server.Close() }, api.Stop)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				secure := tls.Server(conn, config)
				if err := secure.Handshake(); err != nil {
					_ = conn.Close()
					return
				}
				to := webConns
				if strings.HasPrefix(secure.ConnectionState().NegotiatedProtocol, constants.ALPNSNIAuthProtocol) {
					to = apiConns
				}
				select {
				case to.conns <- secure:
				case <-to.closed:
					_ = conn.Close()
				}
			}()
		}
	}()
	return nil
}

// queue is a listener whose connections come from another.
type queue struct {
	net.Listener
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (c *Cluster) ping(w http.ResponseWriter, _ *http.Request) {
	answer := webclient.PingResponse{ClusterName: c.Name}
	answer.Auth.Type = constants.Local
	answer.Auth.SecondFactor = constants.SecondFactorOff
	if c.cfg.OTP != "" {
		answer.Auth.SecondFactor = constants.SecondFactorOTP
	}
	answer.Proxy.SSH.ListenAddr = c.SSHAddr
	answer.Proxy.SSH.SSHPublicAddr = c.SSHAddr
	answer.Proxy.SSH.PublicAddr = c.WebAddr
	_ = json.NewEncoder(w).Encode(answer)
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(webclient.PingErrorResponse{Error: webclient.PingError{Message: message}})
}

func (c *Cluster) certs(w http.ResponseWriter, r *http.Request) {
	var request struct {
		User     string        `json:"user"`
		Password string        `json:"password"`
		OTP      string        `json:"otp_token"`
		SSHKey   []byte        `json:"ssh_pub_key"`
		TLSKey   []byte        `json:"tls_pub_key"`
		TTL      time.Duration `json:"ttl"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if request.User == "mallory" {
		refuse(w, http.StatusForbidden, "this moves the cursor: \x1b[2J\nand this is a second line")
		return
	}
	if request.User != "alice" || request.Password != Password || request.OTP != c.cfg.OTP {
		refuse(w, http.StatusForbidden, "invalid username, password or code")
		return
	}
	ttl := request.TTL
	if c.cfg.TTL != 0 {
		ttl = c.cfg.TTL
	}
	sshCert, tlsCert, err := c.SignUser(request.User, request.SSHKey, request.TLSKey, time.Now().Add(ttl))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"username": request.User,
		"cert":     sshCert,
		"tls_cert": tlsCert,
		"host_signers": []map[string]any{{
			"domain_name":   c.Name,
			"checking_keys": [][]byte{ssh.MarshalAuthorizedKey(c.hostSSH.PublicKey())},
			"tls_certs":     [][]byte{c.hostTLS.pem()},
		}},
	})
}

// SignUser signs for a user's keys: a line of authorized_keys and PEM.
func (c *Cluster) SignUser(user string, sshKey, tlsKey []byte, until time.Time) (sshCert, tlsCert []byte, err error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey(sshKey)
	if err != nil {
		return nil, nil, err
	}
	cert := &ssh.Certificate{
		Key:             key,
		CertType:        ssh.UserCert,
		KeyId:           user,
		ValidPrincipals: c.cfg.Logins,
		ValidAfter:      uint64(time.Now().Add(-time.Minute).Unix()),
		ValidBefore:     uint64(until.Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{
			"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "",
		}},
	}
	if err := cert.SignCert(rand.Reader, c.userSSH); err != nil {
		return nil, nil, err
	}
	public, err := keys.ParsePublicKey(tlsKey)
	if err != nil {
		return nil, nil, err
	}
	subject, err := tlsca.Identity{Username: user, Groups: []string{"access"}, Principals: c.cfg.Logins, Cluster: c.Name}.Subject()
	if err != nil {
		return nil, nil, err
	}
	der, err := c.userTLS.sign(&x509.Certificate{
		Subject:     subject,
		NotAfter:    until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public)
	if err != nil {
		return nil, nil, err
	}
	return ssh.MarshalAuthorizedKey(cert), certPEM(der), nil
}

// authService answers what tsh asks of the auth service.
type authService struct {
	proto.UnimplementedAuthServiceServer
	cluster *Cluster
}

func (s *authService) Ping(context.Context, *proto.PingRequest) (*proto.PingResponse, error) {
	return &proto.PingResponse{ClusterName: s.cluster.Name}, nil
}

func (s *authService) ListResources(ctx context.Context, request *proto.ListResourcesRequest) (*proto.ListResourcesResponse, error) {
	nodes, err := s.cluster.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	response := &proto.ListResourcesResponse{}
	for _, node := range nodes {
		if !types.MatchLabels(node, request.Labels) {
			continue
		}
		if !node.MatchSearch(request.SearchKeywords) {
			continue
		}
		response.Resources = append(response.Resources, &proto.PaginatedResource{
			Resource: &proto.PaginatedResource_Node{Node: node.(*types.ServerV2)},
		})
	}
	response.TotalCount = int32(len(response.Resources))
	return response, nil
}
