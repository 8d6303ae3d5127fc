package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A proxy connects clients to the address in CONNECT (RFC 9110, Section 9.3.6), and
// records all data.
type proxy struct {
	address string
	server  *http.Server
	wg      sync.WaitGroup // the tunnels and Serve

	mu      sync.Mutex // protects what follows
	tunnels map[string]int
	seen    bytes.Buffer
	open    []net.Conn
}

func startProxy() (*proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{address: l.Addr().String(), tunnels: map[string]int{}}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	p.wg.Go(func() { _ = p.server.Serve(l) })
	return p, nil
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		http.Error(w, "no connection to the server", http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		there.Close()
		return
	}
	p.mu.Lock()
	p.tunnels[r.Host]++
	p.open = append(p.open, here, there)
	p.mu.Unlock()
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	p.wg.Go(func() { p.carry(there, here) })
	p.wg.Go(func() { p.carry(here, there) })
}

func (p *proxy) carry(to, from net.Conn) {
	defer to.Close()
	_, _ = io.Copy(io.MultiWriter(to, p), from)
}

// Write records data.
func (p *proxy) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Write(data)
}

func (p *proxy) saw(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Len() > 0 && bytes.Contains(p.seen.Bytes(), []byte(text))
}

// take returns the number of connections to each address since the last call.
func (p *proxy) take() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	tunnels := p.tunnels
	p.tunnels = map[string]int{}
	return tunnels
}

func (p *proxy) close() {
	_ = p.server.Close()
	p.mu.Lock()
	for _, conn := range p.open {
		conn.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// writeCA writes the certificate of the server to ca.pem. The server is its own
// authority.
func writeCA(dir string, server *clientcredentialstest.Server) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodHead, server.APIURL, nil)
	if err != nil {
		return err
	}
	// Don't ask the API: without a token it would answer 401, and count a rejected call.
	req.URL.Host = host(server.TokenURL)
	resp, err := server.Client().Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	return writePEM(dir, "ca.pem", "CERTIFICATE", resp.TLS.PeerCertificates[0].Raw)
}

// writeClientCertificate makes client.pem and client.key.
func writeClientCertificate(dir string) (*x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "network"},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writePEM(dir, "client.pem", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	if err := writePEM(dir, "client.key", "PRIVATE KEY", secret); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func writePEM(dir, name, kind string, data []byte) error {
	return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600)
}
