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

	"github.com/seed-5bfa0880/clientcredentials"
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

	// grace is by how much a call's token may be younger than the call. A call that
	// waits for a refresh which it has started itself waits for the whole hold. A call
	// that begins just before a new token arrives, and gets it, has not waited.
	grace = 100 * time.Millisecond

	// stall is how long the machine may stop without an influence on the test. No
	// client can refresh a token while its whole process or the server stands still.
	stall = 80 * time.Millisecond

	callers  = 8
	interval = 100 * time.Millisecond // between the calls of a caller
)

// A load is the record of a client whose tokens live for a short time.
type load struct {
	calls []call
	// flights are the token requests. The first one got the first token.
	flights []tokenRequest
	// stalls are the times during which the process stood still.
	stalls []interlude
}

type interlude struct{ from, to time.Time }

// runLoad calls the API at a steady rate, from several goroutines, for ten
// lifetimes of its client's tokens.
func runLoad(t *testing.T, c *testClient) load {
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
	var stalls []interlude
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
	// An independent goroutine notices when the process stands still.
	wg.Go(func() {
		for last := time.Now(); last.Before(end); {
			time.Sleep(5 * time.Millisecond)
			now := time.Now()
			if now.Sub(last) > stall {
				stalls = append(stalls, interlude{last, now})
			}
			last = now
		}
	})
	wg.Wait()

	l := load{
		calls:   slices.Concat(calls...),
		flights: append(before[len(before)-1:], c.wire.tokenRequests()...),
		stalls:  stalls,
	}
	t.Logf("%d calls, %d tokens, %d stalls of the machine", len(l.calls), len(l.flights), len(l.stalls))
	require.Greater(t, len(l.calls), 20*lifetimes, "too few calls to prove anything")
	return l
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
	c.ended, c.err = time.Now(), err
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

// stalled reports whether the process stood still between from and to.
func (l load) stalled(from, to time.Time) bool {
	return slices.ContainsFunc(l.stalls, func(s interlude) bool { return s.from.Before(to) && from.Before(s.to) })
}

// late reports whether the machine delayed flight i: during the second half of the life
// of the token before it, when the flight could begin, or during the flight itself.
func (l load) late(i int) bool {
	f := l.flights[i]
	return l.stalled(l.flights[i-1].begun.Add(shortLife/2), f.answered) || f.answered.Sub(f.begun) > hold+stall
}

// assertNoCallFailed asserts that the answer to each call was 200.
func (l load) assertNoCallFailed(t *testing.T) {
	t.Helper()
	failed := slices.DeleteFunc(slices.Clone(l.calls), func(c call) bool { return c.err == nil && c.status == http.StatusOK })
	if len(failed) > 0 {
		t.Errorf("%d of %d calls failed; the first: status %d, error %v",
			len(failed), len(l.calls), failed[0].status, failed[0].err)
	}
}

// sentAgain returns the number of calls that were sent to the API more than once, without
// a stall during the call.
func (l load) sentAgain() int {
	n := 0
	for _, c := range l.calls {
		if c.hops > 1 && !l.stalled(c.begun, c.ended) {
			n++
		}
	}
	return n
}

// assertNoCallWaited asserts that calls go on while tokens are replaced.
func (l load) assertNoCallWaited(t *testing.T) {
	t.Helper()
	waited, longest := 0, time.Duration(0)
	judged, alone := 0, 0
	for i, f := range l.flights {
		if i == 0 || l.late(i) {
			continue
		}
		judged++
		through := false
		for _, c := range l.calls {
			if wait := f.answered.Sub(c.begun); c.token == f.token && wait > grace {
				waited++
				longest = max(longest, wait)
			}
			// This doesn't depend on the precision of a clock: a call both began and
			// went out while the token request was under way.
			through = through || c.begun.After(f.begun) && c.reached.Before(f.answered)
		}
		if !through {
			alone++
		}
	}
	assert.Zerof(t, waited, "of %d calls waited for a token, the longest %v", len(l.calls), longest)
	assert.Zerof(t, alone, "of %d token requests let no call through until they were answered", judged)
	assert.GreaterOrEqual(t, judged, lifetimes/2, "too few token requests that the machine did not delay to prove anything")
}

// testTenLifetimes: no caller notices that tokens expire.
func testTenLifetimes(t *testing.T, c *testClient) string {
	if c.usesCertificate() {
		// The library uses a RoundTripper that isn't an *http.Transport as it is.
		c.wire.base.TLSClientConfig.GetClientCertificate = clientauth.CertificateSource(c.wallet.certificate).GetClientCertificate
		c.ctx = c.wire.context(t)
	}
	l := runLoad(t, c)

	l.assertNoCallFailed(t)
	l.assertNoCallWaited(t)
	assert.Zero(t, l.sentAgain(), "calls were refused by the API and sent again")

	// A token is used for about three quarters of its life. Each is requested once, with
	// the method that worked for the first.
	assert.GreaterOrEqual(t, len(l.flights), lifetimes-1)
	assert.LessOrEqual(t, len(l.flights), 2*lifetimes)
	for i, r := range l.flights {
		assert.Equal(t, http.StatusOK, r.status)
		assert.Equal(t, l.flights[0].method, r.method)
		assert.False(t, i > 0 && r.begun.Before(l.flights[i-1].answered), "a token request began while another was under way")
	}
	return "no call failed or waited"
}

// TestTokenThatDiesEarly: oidc-provider rounds times down to whole seconds. Without a
// tolerance for clocks, it refuses a token with "expires_in":3 after two to three seconds.
// Then a call gets a 401, the library gets a new token and sends the call again, and the
// caller gets its answer. That happens at most once in 30 seconds, so the test ends when
// it has happened.
func TestTokenThatDiesEarly(t *testing.T) {
	t.Parallel()
	c := secretClient("early", secretBasic, nil)
	c.ttl = shortLife
	at := oidcProviderPunctual.start(t, c)[0]
	w := newWire(t, at.token)
	conf := &clientcredentials.Config{
		ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token,
		EarlyRefresh: 1, // as late as possible, so that the token dies while it is used
	}
	client := conf.Client(w.context(t))
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for end := time.Now().Add(lifetimes * shortLife); time.Now().Before(end); <-tick.C {
		if requireOK(t, client, at.api).hops > 1 {
			return
		}
	}
	t.Error("no token died early: nothing was tested")
}
