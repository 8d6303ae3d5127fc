package conformance

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The names of RFC 7591, Section 2, for the methods a client is registered with.
const (
	secretBasic = "client_secret_basic"
	secretPost  = "client_secret_post"
)

// The scopes that every server here knows. A client may ask for scopeRead and
// is refused scopeAdmin.
const (
	scopeRead  = "read"
	scopeAdmin = "admin"
)

// A registration is a client as the authorization server knows it.
type registration struct {
	id, secret string
	method     string
	ttl        time.Duration
}

// endpoints are where a client gets its token and where it spends it.
type endpoints struct {
	token, api string
}

// An authServer is a kind of authorization server, with what we found out about it.
type authServer struct {
	name string
	// start starts the server for the length of the test, and returns the
	// endpoints of each client in the order of the registrations.
	start func(t *testing.T, clients ...registration) []endpoints
	// lenient servers take the secret of a client registered for one of
	// client_secret_basic and client_secret_post by the other one too.
	lenient bool
}

var authServers = []authServer{
	{name: "oidc-provider", start: startOIDCProvider, lenient: true},
	{name: "go-oauth2", start: startGoOAuth2},
}

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait for tokens to expire rather than compute: how many of
	// them run at a time has nothing to do with the number of processors.
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "64"); err != nil {
			panic(err)
		}
	}
	// The store of go-oauth2 has no way to be closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/tidwall/buntdb.(*DB).backgroundManager"))
}
