// Retry combines this library with two that retry requests, go-resty/resty and
// hashicorp/go-retryablehttp: in the right order, and in the wrong one.
//
//	go -C examples/retry run .
//
// It takes about 5 seconds, and starts its own servers on the loopback interface. The
// part to copy is in layers.go. The program is a module of its own, so that this library
// doesn't depend on the other two.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: retry

Starts overloaded authorization servers and APIs on the loopback interface, and
calls them with libraries that retry.

The exit status is 0 if all checks pass, else 1.
`

const demoSecret = "correct horse battery staple"

func main() { report.Main("retry", usage, run) }

// A call calls the API through one of the libraries.
type call func(ctx context.Context, conf *clientcredentials.Config, address string) error

func retryablehttpCall(ctx context.Context, conf *clientcredentials.Config, address string) error {
	_, err := report.Get(ctx, withRetryablehttp(ctx, conf), address)
	return err
}

func restyCall(ctx context.Context, conf *clientcredentials.Config, address string) error {
	resp, err := withResty(ctx, conf).R().SetContext(ctx).Get(address)
	if err == nil && resp.IsError() {
		err = fmt.Errorf("the API answered %s", resp.Status())
	}
	return err
}

func wrongCall(ctx context.Context, conf *clientcredentials.Config, address string) error {
	_, err := report.Get(ctx, wrongly(ctx, conf), address)
	return err
}

type library struct {
	name string
	call call
}

func run(ctx context.Context, out io.Writer) error {
	r := report.New(out)
	libraries := []library{{"retryablehttp", retryablehttpCall}, {"resty", restyCall}}

	r.Say("1. The API is overloaded, and then the token is revoked")
	for _, l := range libraries {
		d := newDemo()
		err := l.call(ctx, d.conf, d.server.APIURL)
		d.close()
		r.Check(err == nil && d.calls.Load() == 3 && d.server.Auth.TokensIssued() == 2,
			"%s on top: two attempts failed, and the next one had a new token%s", l.name, report.Because(err))
	}

	r.Say("\n2. The authorization server refuses the client")
	for _, l := range libraries {
		d := newDemo()
		d.server.Auth.SetFault(ptr(clientcredentialstest.InvalidClient()))
		err := l.call(ctx, d.conf, d.server.APIURL)
		d.close()
		n := d.server.Auth.TokenRequests()
		r.Check(isRefusal(err) && n == 1, "%s on top: %d token request", l.name, n)
	}

	r.Say("\n3. The authorization server is overloaded")
	for _, l := range libraries {
		n, err := overloaded(ctx, l.call)
		r.Check(isRefusal(err) && n == 3, "%s on top: %d token requests, with pauses of up to a second", l.name, n)
	}
	n, err := overloaded(ctx, wrongCall)
	r.Check(err != nil && n == 3*(1+retries), "retryablehttp below: %d token requests", n)

	r.Say("\n4. The API is overloaded, and each request needs a proof of a key (DPoP)")
	for i, l := range append(libraries, library{"retryablehttp", wrongCall}) {
		d := newDemo()
		var err error
		if d.conf.DPoP, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return err
		}
		err = l.call(ctx, d.conf, d.server.APIURL)
		d.close()
		if i < len(libraries) {
			r.Check(err == nil, "%s on top: each attempt had its own proof%s", l.name, report.Because(err))
		} else {
			r.Check(err != nil, "%s below: a proof was used twice%s", l.name, report.Because(err))
		}
	}
	return r.Result()
}

func overloaded(ctx context.Context, c call) (tokenRequests int, err error) {
	d := newDemo()
	defer d.close()
	d.server.Auth.SetFault(ptr(clientcredentialstest.Unavailable()))
	err = c(ctx, d.conf, d.server.APIURL)
	return d.server.Auth.TokenRequests(), err
}

// A demo is the servers and the Config for one call.
type demo struct {
	server *clientcredentialstest.Server
	conf   *clientcredentials.Config
	calls  atomic.Int64 // of the API, with a valid token
}

// newDemo starts an API that is overloaded for two calls. The first of them revokes the
// token.
func newDemo() *demo {
	d := &demo{server: clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "retry", Secret: demoSecret})}
	d.conf = &clientcredentials.Config{ClientID: "retry", ClientSecret: demoSecret, TokenURL: d.server.TokenURL, AuthStyle: oauth2.AuthStyleInHeader}
	d.server.API.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch d.calls.Add(1) {
		case 1:
			d.server.Auth.RevokeAll()
			fallthrough
		case 2:
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
		}
	})
	return d
}

func (d *demo) close() { d.server.Close() }

func ptr[T any](v T) *T { return &v }
