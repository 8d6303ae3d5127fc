package clientcredentials_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/grant"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// trusting makes f's server trust an issuer, and returns assertions by it.
func trusting(f *fleet) grant.SignedJWT {
	key := testkit.NewKey("ES256")
	f.auth.TrustedIssuers = []clientcredentialstest.TrustedIssuer{{Issuer: "issuer", PublicKeys: []crypto.PublicKey{key.Public()}}}
	return grant.SignedJWT{Key: clientauth.SignerKey(key), Issuer: "issuer", Subject: "a", Audience: "https://auth.example/token"}
}

// bearing is for a replica that sends these assertions, and nothing else.
func bearing(source clientauth.SecretSource) func(*clientcredentials.Config) {
	return func(c *clientcredentials.Config) {
		c.ClientID, c.ClientSecret, c.Grant = "", "", &grant.JWTBearer{Assertion: source}
	}
}

// subjectOf returns whose token that is.
func subjectOf(t *testing.T, f *fleet, token string) string {
	t.Helper()
	known, active := f.auth.Introspect(token)
	require.True(t, active)
	return known.Subject
}

// Replicas share a token if their assertions ask for the same, in the name of the same subject.
func TestG4_ReplicasShareBySubject(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		signed := trusting(f)
		seen := map[string]string{}
		for _, change := range []struct {
			name   string
			change func(a *grant.SignedJWT)
		}{
			{"the first", func(*grant.SignedJWT) {}},
			{"another subject", func(a *grant.SignedJWT) { a.Subject = "b" }},
			{"no subject", func(a *grant.SignedJWT) { a.Subject = "" }},
			{"another scope", func(a *grant.SignedJWT) { a.Claims = map[string]any{"scope": "x"} }},
		} {
			a := signed
			change.change(&a)
			first, _ := f.replica(bearing(a.Source())).get(t)
			a.Lifetime, a.KeyID = 2*time.Minute, "rotated" // Neither the time nor the key matters.
			second, _ := f.replica(bearing(a.Source())).get(t)
			require.Equal(t, first, second, change.name)
			require.NotContains(t, seen, first, "%s and %s", change.name, seen[first])
			seen[first] = change.name
		}
	})
}

// A token exchange shares by the whole subject token and actor token: another one of the same
// subject may have other rights, or be forged.
func TestG4_ExchangeSharesByToken(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		signed := trusting(f)
		signed.Lifetime = 30 * time.Minute
		one, err := signed.Source()(t.Context())
		require.NoError(t, err)
		two, err := signed.Source()(t.Context())
		require.NoError(t, err)
		fixed := func(s string) clientauth.SecretSource {
			return func(context.Context) (string, error) { return s, nil }
		}
		forged := one[:len(one)-8] + "AAAAAAAA"
		seen := map[string]bool{}
		for name, exchange := range map[string]*grant.TokenExchange{
			"one":               {Subject: fixed(one)},
			"two":               {Subject: fixed(two)},
			"one as a JWT":      {Subject: fixed(one), SubjectTokenType: grant.TypeJWT},
			"with an actor":     {Subject: fixed(one), Actor: fixed(one)},
			"another actor":     {Subject: fixed(one), Actor: fixed(two)},
			"an actor as a JWT": {Subject: fixed(one), Actor: fixed(two), ActorTokenType: grant.TypeJWT},
			"a requested type":  {Subject: fixed(one), RequestedTokenType: grant.TypeAccessToken},
		} {
			with := func(c *clientcredentials.Config) { c.Grant = exchange }
			first, _ := f.replica(with).get(t)
			second, _ := f.replica(with).get(t)
			require.Equal(t, first, second, name)
			require.False(t, seen[first], name)
			seen[first] = true
		}
		_, err = f.replica(func(c *clientcredentials.Config) { c.Grant = &grant.TokenExchange{Subject: fixed(forged)} }).Token()
		require.Error(t, err, "a forged token gets nobody's token from the store")
	})
}

// A token that isn't an access token isn't one either when it comes from the store.
func TestG5_SharedTokenIsNotAnAccessToken(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		_, key, err := ed25519.GenerateKey(nil)
		require.NoError(t, err)
		f.auth.Issuer, f.auth.SigningKey = "https://auth.example", key
		own, err := f.replica().AccessToken(t.Context())
		require.NoError(t, err)
		exchange := &grant.TokenExchange{Subject: func(context.Context) (string, error) { return own, nil }, RequestedTokenType: grant.TypeJWT}
		with := func(c *clientcredentials.Config) { c.Grant = exchange }
		first, _ := f.replica(with).get(t)
		r := f.replica(with)
		second, _ := r.get(t)
		require.Equal(t, first, second)
		_, err = (&http.Client{Transport: &clientcredentials.Transport{Source: r.Source, Base: f.network}}).Get("https://api.example/")
		require.ErrorContains(t, err, "the server has issued a token that is not an access token")
	})
}

// The subject is another one when the request is sent than when the store was asked.
func TestG4_SubjectReplacedMeanwhile(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		a := trusting(f)
		b := a
		b.Subject = "b"
		var asked atomic.Int32
		r := f.replica(bearing(func(ctx context.Context) (string, error) {
			if asked.Add(1) == 1 {
				return a.Source()(ctx)
			}
			return b.Source()(ctx)
		}))
		token, _ := r.get(t)
		require.Equal(t, "b", subjectOf(t, f, token))
		time.Sleep(time.Second)
		forA, _ := f.replica(bearing(a.Source())).get(t)
		require.Equal(t, "a", subjectOf(t, f, forA), "a's replicas don't get b's token")

		// The next flight shares it under b's key.
		time.Sleep(59*time.Minute + 50*time.Second)
		next, _ := r.get(t)
		require.Equal(t, "b", subjectOf(t, f, next))
		other, _ := f.replica(bearing(b.Source())).get(t)
		require.Equal(t, next, other)
	})
}

// A Source serves one subject at a time: the token of the next one takes the place of the old
// one, in the background like any other.
func TestG4_SubjectReplacedLater(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		signed := trusting(f)
		subject := "a"
		r := f.replica(bearing(func(ctx context.Context) (string, error) {
			signed.Subject = subject
			return signed.Source()(ctx)
		}))
		first, _ := r.get(t)
		subject = "b"
		time.Sleep(57 * time.Minute)
		token, waited := r.get(t)
		require.Equal(t, first, token)
		require.Zero(t, waited)
		time.Sleep(time.Second)
		token, waited = r.get(t)
		require.Zero(t, waited)
		require.Equal(t, "b", subjectOf(t, f, token))
	})
}

// If the grant fails before the store is asked, neither the store nor the server is.
func TestG4_GrantFailsBeforeTheStore(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		var calls atomic.Int32
		r := f.replica(bearing(func(context.Context) (string, error) {
			calls.Add(1)
			return "", errors.New("the file is gone")
		}))
		_, err := r.Token()
		require.EqualError(t, err, "oauth2: cannot fetch token: "+grant.TypeJWTBearer+": the file is gone")
		require.EqualValues(t, 1, calls.Load())
		require.Zero(t, f.auth.TokenRequests())
		require.Empty(t, r.operations)
	})
}

// A grant that asks another server may fail with a refusal that asks for a pause. Other
// replicas must not take it for one of this server.
func TestG6_RefusalOfAnotherServerIsNotShared(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		signed := trusting(f)
		other := clientcredentialstest.AuthorizationServer{}
		other.SetFault(&clientcredentialstest.Fault{Status: 503, Header: http.Header{"Retry-After": {"30"}}})
		busy := &clientcredentials.Config{
			TokenURL: "https://other.example/token", Retry: clientcredentials.RetryPolicy{MaxAttempts: 1},
			HTTPClient: &http.Client{Transport: clientcredentialstest.HandlerTransport(&other)},
		}
		var calls atomic.Int32
		r := f.replica(bearing(func(ctx context.Context) (string, error) {
			if calls.Add(1) == 1 {
				return signed.Source()(ctx)
			}
			_, err := busy.Token(ctx)
			return "", err
		}))
		_, err := r.Token()
		require.True(t, clientcredentials.IsTemporary(err), "%v", err)
		_, waited := f.replica(bearing(signed.Source())).get(t)
		require.Less(t, waited, 10*time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, operation := range r.operations {
			require.NotEqual(t, event.Publish, operation.Operation)
		}
	})
}
