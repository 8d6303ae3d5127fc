// Tenants calls an API on behalf of many tenants, each with credentials of its own:
// one Config, one client and one token for each, of which the last used are kept.
//
//	go run ./examples/tenants
//
// takes a moment. The servers are its own, on the loopback interface. What to copy
// is in tenants.go.
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

The exit status is 0 if what the output claims held, else 1.
`

func main() { report.Main("tenants", usage, run) }

const (
	tenants = 10 // of the service
	most    = 4  // that are kept
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
	// The API answers with the name of the client that the token was issued to.
	server.API.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := server.Auth.Introspect(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		fmt.Fprint(w, token.ClientID)
	})
	s := &service{apiURL: server.APIURL, tenants: NewTenants(ctx, most, func(_ context.Context, tenant string) (*clientcredentials.Config, error) {
		// A real service has this in a database.
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
	r.Check(failed == nil, "each got through with its own tenant's token%s", report.Because(failed))
	r.Check(n == most, "token requests: %d, one for each tenant", n)

	r.Say("\n2. More tenants than are kept")
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
	r.Check(s.tenants.Len() == most, "clients that are kept: %d", s.tenants.Len())
	n = requests(func() { failed = s.callWith(ctx, kept, name(0)) })
	r.Check(failed == nil && n == 0, "who still has a client that isn't kept can go on using it%s", report.Because(failed))
	n = requests(func() { failed = s.call(ctx, name(0)) })
	r.Check(failed == nil && n == 1, "a tenant that comes again costs one token request%s", report.Because(failed))

	r.Say("\n3. A tenant with a wrong secret")
	err = s.call(ctx, name(tenants))
	var refusal *oauth2.RetrieveError
	r.Check(errors.As(err, &refusal) && refusal.ErrorCode == "invalid_client", "gets an error: %v", err)
	n = requests(func() { failed = s.call(ctx, name(0)) })
	r.Check(failed == nil && n == 0, "which is nothing to the others%s", report.Because(failed))

	r.Say("\n4. A tenant gets another secret")
	s.tenants.Forget(name(0))
	n = requests(func() { failed = s.call(ctx, name(0)) })
	r.Check(failed == nil && n == 1, "it is forgotten, and looked up at the next call%s", report.Because(failed))
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

// callWith returns an error, too, if the call was made with another tenant's token.
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

// callAll makes the first tenants' calls, all at the same time.
func (s *service) callAll(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		wg.Go(func() { errs[i] = s.call(ctx, name(i%most)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
