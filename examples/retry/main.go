// Retry puts libraries that repeat requests, go-resty/resty and
// hashicorp/go-retryablehttp, and this one on top of each other: in the right order,
// and in the wrong one.
//
//	go -C examples/retry run .
//
// takes about 5 seconds. The servers are its own, on the loopback interface. What to
// copy is in layers.go. It is a module of its own, because those libraries are no
// dependencies of this one.
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

Starts authorization servers and APIs on the loopback interface, that are
overloaded, and calls them with libraries that try again.

The exit status is 0 if what the output claims held, else 1.
`

const demoSecret = "correct horse battery staple"

func main() { report.Main("retry", usage, run) }

// call makes a call through one of the libraries.
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

	r.Say("1. The API is overloaded, and during that the token is revoked")
	for _, l := range libraries {
		d := newDemo()
		err := l.call(ctx, d.conf, d.server.APIURL)
		d.close()
		r.Check(err == nil && d.calls.Load() == 3 && d.server.Auth.TokensIssued() == 2,
			"%s above: two attempts failed, and the next one was made with another token%s", l.name, report.Because(err))
	}

	r.Say("\n2. The authorization server refuses")
	for _, l := range libraries {
		d := newDemo()
		d.server.Auth.SetFault(ptr(clientcredentialstest.InvalidClient()))
		err := l.call(ctx, d.conf, d.server.APIURL)
		d.close()
		n := d.server.Auth.TokenRequests()
		r.Check(isRefusal(err) && n == 1, "%s above: token requests: %d", l.name, n)
	}

	r.Say("\n3. The authorization server is overloaded")
	for _, l := range libraries {
		n, err := overloaded(ctx, l.call)
		r.Check(isRefusal(err) && n == 3, "%s above: token requests: %d, a pause of up to a second between them", l.name, n)
	}
	n, err := overloaded(ctx, wrongCall)
	r.Check(err != nil && n == 3*(1+retries), "retryablehttp below: token requests: %d", n)

	r.Say("\n4. The API is overloaded, and each request has to prove the possession of a key (DPoP)")
	for i, l := range append(libraries, library{"retryablehttp", wrongCall}) {
		d := newDemo()
		var err error
		if d.conf.DPoP, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return err
		}
		err = l.call(ctx, d.conf, d.server.APIURL)
		d.close()
		if i < len(libraries) {
			r.Check(err == nil, "%s above: each attempt had a proof of its own%s", l.name, report.Because(err))
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

// demo is what each of the calls gets for itself.
type demo struct {
	server *clientcredentialstest.Server
	conf   *clientcredentials.Config
	calls  atomic.Int64 // of the API with a good token
}

// newDemo starts an API that is overloaded for two calls. During the first the token
// is revoked.
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
