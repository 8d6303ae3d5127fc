package conformance

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

const (
	shortLife = 3 * time.Second
	lifetimes = 10

	// hold is how long a token request takes at least. A token of three seconds is
	// refreshed in the background at an age of 2.25 to 2.44 s. From an age of 2.7 s on,
	// the hard window, calls wait for the refresh. So it has a quarter of a second
	// before it delays any call.
	hold = 150 * time.Millisecond

	callers  = 8
	interval = 100 * time.Millisecond // between the calls of a caller
)

// runLoad calls the API at a steady rate, from several goroutines, for ten lifetimes of its
// client's tokens. It returns the calls, and the token requests from the one on that got the
// first token.
func runLoad(t *testing.T, c *testClient) ([]call, []tokenRequest) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	c.wire.hold = hold
	client := c.conf.Client(c.ctx)

	// Every caller has to wait for the first token.
	requireOK(t, client, c.at.api)
	before := c.wire.tokenRequests()

	end := time.Now().Add(lifetimes * shortLife)
	calls := make([][]call, callers)
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * interval / callers)
			tick := time.NewTicker(interval)
			defer tick.Stop()
			for now := range tick.C {
				if now.After(end) {
					return
				}
				calls[i] = append(calls[i], do(t.Context(), client, c.at.api, nil))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(calls...)
	require.Greater(t, len(all), 20*lifetimes, "too few calls to prove anything")
	return all, append(before[len(before)-1:], c.wire.tokenRequests()...)
}

// do makes one call of the API: a POST if there is a body, or else a GET.
func do(ctx context.Context, client *http.Client, api string, body io.Reader) call {
	var c call
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(withCall(ctx, &c), method, api, body)
	if err != nil {
		return call{err: err}
	}
	c.begun = time.Now()
	resp, err := client.Do(r)
	if err != nil {
		c.err = err
		return c
	}
	defer func() { _ = resp.Body.Close() }()
	c.status, c.proto = resp.StatusCode, resp.Proto
	text, err := io.ReadAll(resp.Body)
	c.err = err
	_ = json.Unmarshal(text, &c.answer) // a refusal has none of its members
	return c
}

// requireOK makes one call of the API, which must be answered with 200.
func requireOK(t *testing.T, client *http.Client, api string) call {
	t.Helper()
	c := do(t.Context(), client, api, nil)
	require.NoError(t, c.err)
	require.Equal(t, http.StatusOK, c.status)
	return c
}

// testTenLifetimes: no caller notices that tokens expire.
func testTenLifetimes(t *testing.T, c *testClient) string {
	if c.usesCertificate() {
		// The library uses a RoundTripper that isn't an *http.Transport as it is.
		c.wire.base.TLSClientConfig.GetClientCertificate = clientauth.CertificateSource(c.wallet.certificate).GetClientCertificate
		c.ctx = c.wire.context(t)
	}
	calls, flights := runLoad(t, c)

	// A token is used for about three quarters of its life. Each is requested once, with
	// the method that worked for the first.
	assert.GreaterOrEqual(t, len(flights), lifetimes-1)
	assert.LessOrEqual(t, len(flights), 2*lifetimes)
	through := 0
	for i, f := range flights {
		assert.Equal(t, http.StatusOK, f.status)
		assert.Equal(t, flights[0].method, f.method)
		assert.False(t, i > 0 && f.begun.Before(flights[i-1].answered), "a token request began while another was under way")
		if slices.ContainsFunc(calls, func(c call) bool { return c.begun.After(f.begun) && c.reached.Before(f.answered) }) {
			through++
		}
	}
	again := 0
	for _, c := range calls {
		require.NoError(t, c.err)
		require.Equal(t, http.StatusOK, c.status)
		again += min(c.hops, 2) - 1
	}
	// The machine may stand still for a while, and then calls wait or come too late.
	assert.GreaterOrEqual(t, through, lifetimes/2, "calls waited for most token requests")
	assert.Less(t, again, lifetimes/2, "calls were refused by the API and sent again")
	return "no call failed or waited"
}
