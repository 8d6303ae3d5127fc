package conformance

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// TestNonces: a server that answers with a nonce gets proofs with it, over HTTP/1.1 and
// HTTP/2. One of the servers here always demands a nonce. The clock of the other is an
// hour fast, so every proof is too old for it until the proof contains one of its nonces
// (RFC 9449, Section 11.1).
func TestNonces(t *testing.T) {
	const body = "a body of some length"
	for _, s := range []struct {
		name, proto string
		start       starter
	}{
		{"demanded", "HTTP/1.1", oidcProviderNonce.start},
		{"for_a_wrong_clock", "HTTP/2.0", oidcProviderAhead.start},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := secretClient("nonces", secretBasic, dpopBound())
			at := s.start(t, c)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{
				ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, AuthStyle: oauth2.AuthStyleInHeader,
				DPoP: testKeys()["ES256"],
			}
			client := conf.Client(w.context(t))
			send := func() call { return do(t.Context(), client, at.api, strings.NewReader(body)) }
			first := send()
			require.NoError(t, first.err)
			assert.Equal(t, http.StatusOK, first.status)
			assert.Equal(t, s.proto, first.proto)
			assert.Equal(t, 2, first.hops, "it is sent again with the nonce")
			assert.Equal(t, len(body), first.answer.Length, "with the whole body")
			asked := w.tokenRequests()
			assert.Len(t, asked, 2)
			assert.Equal(t, []int{http.StatusBadRequest, http.StatusOK}, []int{asked[0].status, asked[len(asked)-1].status})

			// Nonces live for a second or two, so one of these calls is in time.
			inTime := slices.ContainsFunc(make([]int, 10), func(int) bool { return send().hops == 1 })
			assert.True(t, inTime, "each call asked for a nonce first")

			// The client gets a new token with the nonce of the token endpoint that it has.
			at.revoke(t, requireOK(t, client, at.api).token)
			again := send()
			assert.Equal(t, http.StatusOK, again.status)
			assert.Equal(t, len(body), again.answer.Length)
			assert.Len(t, w.tokenRequests(), 1)
		})
	}
}
