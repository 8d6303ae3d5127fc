// Network calls an API in a network that has its own certification authority, a proxy,
// and servers that ask for the client's certificate.
//
//	go run ./examples/network
//
// It takes a moment, and starts its own servers on the loopback interface. The parts to
// copy are network.go and the functions that set up a Config.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: network

Starts an authorization server, an API and a proxy on the loopback interface, and
calls the API through the proxy. The servers have certificates of a private
authority, and ask for the client's certificate.

The exit status is 0 if all checks pass, else 1.
`

const demoSecret = "correct horse battery staple"

func main() {
	log.SetOutput(io.Discard) // The servers of net/http log the handshake that fails in the first step.
	report.Main("network", usage, run)
}

func run(ctx context.Context, out io.Writer) error {
	r := report.New(out)
	d, err := newDemo()
	if err != nil {
		return err
	}
	defer d.close()
	for _, step := range []func(context.Context, *report.Report) error{
		d.nothingSet, d.oneForBoth, d.tokensOnly, d.certificateOnly,
	} {
		if err := step(ctx, r); err != nil {
			return err
		}
	}
	return r.Result()
}

// A demo is the servers of the program, and the files of its network.
type demo struct {
	server *clientcredentialstest.Server
	proxy  *proxy
	dir    string // with ca.pem, client.pem and client.key
}

// network is the part that a real program would read from its configuration.
func (d *demo) network() Network {
	return Network{
		CAFile:      filepath.Join(d.dir, "ca.pem"),
		Proxy:       &url.URL{Scheme: "http", Host: d.proxy.address},
		Certificate: d.certificate(),
	}
}

func (d *demo) certificate() clientauth.CertificateSource {
	return clientauth.CertificateFiles(filepath.Join(d.dir, "client.pem"), filepath.Join(d.dir, "client.key"))
}

func (d *demo) config() *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:     "network",
		ClientSecret: demoSecret,
		TokenURL:     d.server.TokenURL,
	}
}

func (d *demo) nothingSet(ctx context.Context, r *report.Report) error {
	r.Say("1. Nothing is set up")
	_, err := report.Get(ctx, d.config().Client(ctx), d.server.APIURL)
	var unknown x509.UnknownAuthorityError
	r.Check(errors.As(err, &unknown) && d.server.Auth.TokenRequests() == 0, "no secret is sent to a server that isn't trusted: %v", err)
	return nil
}

func (d *demo) oneForBoth(ctx context.Context, r *report.Report) error {
	r.Say("\n2. The same network for token requests and API calls")
	transport, err := d.network().Transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: transport})
	client := d.config().Client(ctx)

	_, err = report.Get(ctx, client, d.server.APIURL)
	r.Check(err == nil, "the API was called%s", report.Because(err))
	tunnels := d.proxy.take()
	r.Check(len(tunnels) == 2 && tunnels[host(d.server.TokenURL)] == 1 && tunnels[host(d.server.APIURL)] == 1, "the proxy carried one connection to each server")
	r.Check(!d.proxy.saw(demoSecret) && !d.proxy.saw("Bearer"), "the proxy saw neither the secret nor a token")
	r.Check(presented(d.server.Auth.Requests()) && presented(d.server.API.Requests()), "both servers saw the client's certificate")
	return nil
}

func (d *demo) tokensOnly(ctx context.Context, r *report.Report) error {
	r.Say("\n3. A proxy for token requests only")
	outside, err := d.network().Transport()
	if err != nil {
		return err
	}
	defer outside.CloseIdleConnections()
	inside, err := Network{CAFile: d.network().CAFile}.Transport()
	if err != nil {
		return err
	}
	defer inside.CloseIdleConnections()
	conf := d.config()
	conf.HTTPClient = &http.Client{Transport: outside}                               // for token requests
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: inside}) // for the API
	client := conf.Client(ctx)

	_, err = report.Get(ctx, client, d.server.APIURL)
	r.Check(err == nil, "the API was called%s", report.Because(err))
	tunnels := d.proxy.take()
	r.Check(len(tunnels) == 1 && tunnels[host(d.server.TokenURL)] == 1, "the proxy carried one connection, to the authorization server")
	return nil
}

func (d *demo) certificateOnly(ctx context.Context, r *report.Report) error {
	r.Say("\n4. The certificate instead of a secret")
	network := d.network()
	network.Certificate = nil // ClientAuth presents it to both servers, and follows a rotation.
	transport, err := network.Transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	conf := &clientcredentials.Config{
		ClientID:   "certified",
		TokenURL:   d.server.TokenURL,
		HTTPClient: &http.Client{Transport: transport},
		ClientAuth: &clientauth.SelfSignedTLSClientAuth{Source: d.certificate()},
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, conf.HTTPClient)
	client := conf.Client(ctx)
	defer client.CloseIdleConnections()

	_, err = report.Get(ctx, client, d.server.APIURL)
	r.Check(err == nil, "the API was called with a token that only works with the certificate%s", report.Because(err))
	requests := d.server.Auth.Requests()
	r.Check(requests[len(requests)-1].AuthMethod == "self_signed_tls_client_auth", "no secret was needed")
	return nil
}

func presented(requests []clientcredentialstest.Request) bool {
	for _, r := range requests {
		if r.Certificate == nil {
			return false
		}
	}
	return len(requests) > 0
}

func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

func newDemo() (*demo, error) {
	dir, err := os.MkdirTemp("", "network")
	if err != nil {
		return nil, err
	}
	d := &demo{dir: dir}
	certificate, err := writeClientCertificate(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	d.server = clientcredentialstest.NewTLSServer(
		clientcredentialstest.Client{ID: "network", Secret: demoSecret},
		clientcredentialstest.Client{ID: "certified", Certificates: []*x509.Certificate{certificate}, CertificateBound: true},
	)
	if d.proxy, err = startProxy(); err == nil {
		err = writeCA(dir, d.server)
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *demo) close() {
	d.server.Client().CloseIdleConnections()
	if d.proxy != nil {
		d.proxy.close()
	}
	d.server.Close()
	_ = os.RemoveAll(d.dir)
}
