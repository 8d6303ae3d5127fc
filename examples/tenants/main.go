// Tenants calls an API on behalf of many tenants. Each tenant has its own credentials,
// and so its own Config, client and token. The most recently used clients are kept.
//
//	go run ./examples/tenants
//
// It takes a moment, and starts its own servers on the loopback interface. The part to
// copy is in tenants.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: tenants

Starts an authorization server and an API on the loopback interface, and calls
the API for ten tenants, with room for the tokens of four.

The exit status is 0 if all checks pass, else 1.
`

func main() { report.Main("tenants", usage, run) }

const (
	tenants = 10 // of the service
	most    = 4  // clients that are kept
	callers = 200
)

func name(i int) string { return fmt.Sprintf("tenant-%d", i) }

func secret(tenant string) string { return "correct horse battery staple of " + tenant }

func run(ctx context.Context, out io.Writer) error {
	r := report.New(out)
	var registered []clientcredentialstest.Client
	for i := range tenants {
		registered = append(registered, clientcredentialstest.Client{ID: name(i), Secret: secret(name(i))})
	}
	server := clientcredentialstest.NewServer(registered...)
	defer server.Close()
	// The API answers with the name of the client that the token was issued for.
	server.API.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := server.Auth.Introspect(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		fmt.Fprint(w, token.ClientID)
	})
	s := &service{apiURL: server.APIURL, tenants: NewTenants(ctx, most, func(_ context.Context, tenant string) (*clientcredentials.Config, error) {
		// A real service reads this from a database.
		conf := &clientcredentials.Config{ClientID: tenant, ClientSecret: secret(tenant), TokenURL: server.TokenURL, AuthStyle: oauth2.AuthStyleInHeader}
		if tenant == name(tenants) {
			conf.ClientSecret = "wrong"
		}
		return conf, nil
	})}
	requests := func(do func()) int {
		before := server.Auth.TokenRequests()
		do()
		return server.Auth.TokenRequests() - before
	}

	r.Say("1. %d concurrent calls for %d tenants", callers, most)
	var failed error
	n := requests(func() { failed = s.callAll(ctx) })
	r.Check(failed == nil, "each succeeded with the token of its own tenant%s", report.Because(failed))
	r.Check(n == most, "%d token requests, one for each tenant", n)

	r.Say("\n2. More tenants than clients that are kept")
	kept, err := s.tenants.Client(ctx, name(0))
	if err != nil {
		return err
	}
	n = requests(func() {
		for i := most; i < tenants; i++ {
			failed = errors.Join(failed, s.call(ctx, name(i)))
		}
	})
	r.Check(failed == nil && n == tenants-most, "%d more tenants, %d more token requests%s", tenants-most, n, report.Because(failed))
	r.Check(s.tenants.Len() == most, "%d clients are kept", s.tenants.Len())
	n = requests(func() { failed = s.callWith(ctx, kept, name(0)) })
	r.Check(failed == nil && n == 0, "a client that is no longer kept still works%s", report.Because(failed))
	n = requests(func() { failed = s.call(ctx, name(0)) })
	r.Check(failed == nil && n == 1, "a tenant that comes back costs one token request%s", report.Because(failed))

	r.Say("\n3. A tenant with a wrong secret")
	err = s.call(ctx, name(tenants))
	var refusal *oauth2.RetrieveError
	r.Check(errors.As(err, &refusal) && refusal.ErrorCode == "invalid_client", "gets an error: %v", err)
	n = requests(func() { failed = s.call(ctx, name(0)) })
	r.Check(failed == nil && n == 0, "the other tenants don't notice%s", report.Because(failed))

	r.Say("\n4. A tenant gets another secret")
	s.tenants.Forget(name(0))
	n = requests(func() { failed = s.call(ctx, name(0)) })
	r.Check(failed == nil && n == 1, "its client is dropped, and the next call looks up the new secret%s", report.Because(failed))
	return r.Result()
}

// A service calls an API on behalf of tenants.
type service struct {
	tenants *Tenants
	apiURL  string
}

func (s *service) call(ctx context.Context, tenant string) error {
	client, err := s.tenants.Client(ctx, tenant)
	if err != nil {
		return err
	}
	return s.callWith(ctx, client, tenant)
}

// callWith also returns an error if the call was made with the token of another tenant.
func (s *service) callWith(ctx context.Context, client *http.Client, tenant string) error {
	body, err := report.Get(ctx, client, s.apiURL)
	switch {
	case err != nil:
		return err
	case body != tenant:
		return fmt.Errorf("the call for %s was made with the token of %s", tenant, body)
	}
	return nil
}

// callAll makes calls for the first tenants, all at the same time.
func (s *service) callAll(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		wg.Go(func() { errs[i] = s.call(ctx, name(i%most)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
