package clientcredentials

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A dpopWorld is an authorization server and an API that check proofs of possession. The
// test fails if a request breaks RFC 9449. In these tests the nonces of the server begin
// with "token", and those of the API with "api".
type dpopWorld struct {
	*testing.T
	auth    *clientcredentialstest.AuthorizationServer
	api     *clientcredentialstest.ResourceServer
	apiURL  string
	conf    *Config
	ctx     context.Context
	rewrite *strings.Replacer // of each answer
	onToken http.Handler      // auth, unless the test replaces it
	onAPI   http.Handler      // api, unless the test replaces it

	mu         sync.Mutex // protects transcript
	transcript []string   // "token" or "api", and the error code or "yes"
}

func newDPoPWorld(t *testing.T, http2 bool) *dpopWorld {
	t.Helper()
	auth := &clientcredentialstest.AuthorizationServer{
		Clients: []clientcredentialstest.Client{{ID: "client", Secret: "secret", RequireDPoP: true}},
	}
	api := &clientcredentialstest.ResourceServer{Issuer: auth}
	w := &dpopWorld{T: t, auth: auth, api: api, onToken: auth, onAPI: api, rewrite: strings.NewReplacer()}
	client, urls := serveTLS(t, http2,
		w.record("token", func() http.Handler { return w.onToken }), w.record("api", func() http.Handler { return w.onAPI }))
	t.Cleanup(func() { require.Empty(t, append(auth.Violations(), api.Violations()...)) })
	w.apiURL = urls[1]
	w.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, client)
	w.conf = &Config{ClientID: "client", ClientSecret: "secret", TokenURL: urls[0] + "/token?tenant=1", DPoP: newProofSigner(t)}
	return w
}

var errorCode = regexp.MustCompile(`error"?[=:]"(\w+)"`)

// record returns a handler that passes requests to another handler and adds its answers to
// the transcript. It also checks what the fake servers don't check: that the nonce doesn't
// come from another server, that the id is long, and that the time is right.
func (w *dpopWorld) record(who string, handler func() http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		_, rest, _ := strings.Cut(req.Header.Get("DPoP"), ".")
		payload, _, _ := strings.Cut(rest, ".")
		decoded, _ := base64.RawURLEncoding.DecodeString(payload)
		var claims struct {
			ID       string `json:"jti"`
			Nonce    string `json:"nonce"`
			IssuedAt int64  `json:"iat"`
		}
		assert.NoError(w, json.Unmarshal(decoded, &claims))
		assert.GreaterOrEqual(w, len(claims.ID), 16)
		assert.Less(w, time.Since(time.Unix(claims.IssuedAt, 0)).Abs(), 5*time.Second)
		assert.True(w, claims.Nonce == "" || strings.HasPrefix(claims.Nonce, who+"-"), claims.Nonce)

		answer := httptest.NewRecorder()
		handler().ServeHTTP(answer, req)
		for name, values := range answer.Header() {
			rw.Header().Set(name, w.rewrite.Replace(strings.Join(values, ", ")))
		}
		rw.Header().Del("Content-Length")
		body := w.rewrite.Replace(answer.Body.String())
		word := "yes"
		if code := errorCode.FindStringSubmatch(rw.Header().Get("WWW-Authenticate") + body); code != nil {
			word = code[1]
		}
		w.mu.Lock()
		w.transcript = append(w.transcript, who+": "+word)
		w.mu.Unlock()
		rw.WriteHeader(answer.Code)
		_, _ = io.WriteString(rw, body)
	})
}

// take returns the transcript since the last call.
func (w *dpopWorld) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	transcript := w.transcript
	w.transcript = nil
	return transcript
}

func (w *dpopWorld) clients() map[string]*http.Client {
	return map[string]*http.Client{
		"Client":    w.conf.Client(w.ctx),
		"Transport": {Transport: w.conf.Transport(w.ctx)},
	}
}

// get sends a request to the API and returns the status of the answer.
func (w *dpopWorld) get(client *http.Client) int {
	w.Helper()
	resp, err := client.Get(w.apiURL)
	require.NoError(w, err)
	resp.Body.Close()
	return resp.StatusCode
}

func TestDPoP(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, kind := range kinds {
			t.Run(kind+map[bool]string{true: " HTTP/2"}[http2], func(t *testing.T) {
				t.Parallel()
				w := newDPoPWorld(t, http2)
				w.api.Handler = http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
					body, err := io.ReadAll(req.Body)
					assert.NoError(t, err)
					assert.Equal(t, "body", string(body))
				})
				client := w.clients()[kind]
				call := func(want ...string) {
					t.Helper()
					resp, err := client.Post(w.apiURL+"/a%2Fb?query=1", "text/plain", strings.NewReader("body"))
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, want, w.take())
				}
				call("token: yes", "api: yes")
				call("api: yes")

				w.api.SetDPoPNonce("api-1")
				call("api: use_dpop_nonce", "api: yes")
				call("api: yes")
				w.api.SetDPoPNonce("api-2")
				call("api: use_dpop_nonce", "api: yes")

				w.auth.SetDPoPNonce("token-1")
				w.auth.RevokeAll()
				call("api: invalid_token", "token: use_dpop_nonce", "token: yes", "api: yes")
			})
		}
	}
}

// The next nonce may come with a good answer.
func TestDPoPNonceOfASuccess(t *testing.T) {
	w := newDPoPWorld(t, false)
	client := w.conf.Client(w.ctx)
	w.auth.SetDPoPNonce("token-1")
	w.api.SetDPoPNonce("api-1")
	w.get(client)
	require.Equal(t, []string{"token: use_dpop_nonce", "token: yes", "api: use_dpop_nonce", "api: yes"}, w.take())
	w.onAPI = http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.api.ServeHTTP(rw, req)
		rw.Header().Set("DPoP-Nonce", "api-2")
	})
	w.get(client)
	w.api.SetDPoPNonce("api-2")
	w.get(client)
	require.Equal(t, []string{"api: yes", "api: yes"}, w.take())
}

// A server may refuse a proof because of its time. If it also sends a nonce, it will take
// the time from the nonce.
func TestDPoPClockSkew(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.rewrite = strings.NewReplacer("use_dpop_nonce", "invalid_dpop_proof")
	w.auth.SetDPoPNonce("token-1")
	w.api.SetDPoPNonce("api-1")
	w.get(w.conf.Client(w.ctx))
	require.Equal(t, []string{"token: invalid_dpop_proof", "token: yes", "api: invalid_dpop_proof", "api: yes"}, w.take())
}

// A server that refuses every nonce gets only one more request.
func TestDPoPNonceIsNeverRight(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.conf.Retry.MaxAttempts = 1
	count := 0
	w.onToken = http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		count++
		w.auth.SetDPoPNonce(fmt.Sprint("token-", count))
		w.auth.ServeHTTP(rw, req)
	})
	_, err := w.conf.Token(w.ctx)
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "use_dpop_nonce", refusal.ErrorCode)
	require.Equal(t, []string{"token: use_dpop_nonce", "token: use_dpop_nonce"}, w.take())

	w.onToken = w.auth
	w.auth.SetDPoPNonce("")
	w.onAPI = http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		count++
		w.api.SetDPoPNonce(fmt.Sprint("api-", count))
		w.api.ServeHTTP(rw, req)
	})
	require.Equal(t, http.StatusUnauthorized, w.get(w.conf.Client(w.ctx)))
	require.Equal(t, []string{"token: yes", "api: use_dpop_nonce", "api: use_dpop_nonce"}, w.take())
}

// A body that can be read only once isn't sent again. The next request has the nonce.
func TestDPoPBodyOnce(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.api.SetDPoPNonce("api-1")
	client := w.conf.Client(w.ctx)
	for _, want := range []int{http.StatusUnauthorized, http.StatusOK} {
		resp, err := client.Post(w.apiURL, "text/plain", io.NopCloser(strings.NewReader("once")))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, want, resp.StatusCode)
	}
	require.Equal(t, []string{"token: yes", "api: use_dpop_nonce", "api: yes"}, w.take())
}

func TestP3e_UnboundToken(t *testing.T) {
	w := newDPoPWorld(t, false)
	for _, tokenType := range []string{"Bearer", "", "dpop2"} {
		w.rewrite = strings.NewReplacer(`"token_type":"DPoP"`, fmt.Sprintf(`"token_type":%q`, tokenType))
		_, err := w.conf.Token(w.ctx)
		require.ErrorContains(t, err, "token_type is not DPoP")
		var fault *ResponseError
		require.ErrorAs(t, err, &fault)
	}
	w.rewrite = strings.NewReplacer(`"token_type":"DPoP"`, `"token_type":"dpop"`)
	w.conf.Strict = true
	require.Equal(t, http.StatusOK, w.get(w.conf.Client(w.ctx)), "the letter case of the scheme doesn't matter")
}

// A fickleSigner has a key, and refuses to use it when the test says so.
type fickleSigner struct {
	*ecdsa.PrivateKey
	refuses atomic.Bool
}

func (s *fickleSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.refuses.Load() {
		return nil, errors.New("the device is locked")
	}
	return s.PrivateKey.Sign(random, digest, opts)
}

func TestDPoPKeys(t *testing.T) {
	refusing := &fickleSigner{PrivateKey: newProofSigner(t)}
	refusing.refuses.Store(true)
	for want, signer := range map[string]crypto.Signer{
		"no public key": (*ecdsa.PrivateKey)(nil),
		"the signer failed: the device is locked": refusing,
	} {
		endpoint := newTokenEndpoint(reply{body: `{"access_token":"a","token_type":"DPoP"}`})
		conf := endpoint.config()
		conf.DPoP = signer
		_, err := conf.Token(t.Context())
		require.ErrorContains(t, err, "oauth2: cannot fetch token: DPoP: ")
		require.ErrorContains(t, err, want)
		require.Empty(t, endpoint.received())
	}
}

func TestDPoPSignerFailsLater(t *testing.T) {
	w := newDPoPWorld(t, false)
	signer := &fickleSigner{PrivateKey: newProofSigner(t)}
	w.conf.DPoP = signer
	for name, client := range w.clients() {
		signer.refuses.Store(false)
		w.get(client)
		w.take()
		signer.refuses.Store(true)
		body := &closeCounter{Reader: strings.NewReader("x")}
		_, err := client.Post(w.apiURL, "text/plain", body)
		require.ErrorContains(t, err, "oauth2: cannot make the proof for DPoP: the signer failed: the device is locked", name)
		require.Empty(t, w.take(), "nothing is sent without a proof")
		require.EqualValues(t, 1, body.closed.Load(), name)
	}
}

// An oauth2.TokenSource can't make proofs.
func TestDPoPThroughATokenSource(t *testing.T) {
	w := newDPoPWorld(t, false)
	client := &http.Client{Transport: &Transport{Source: w.conf.TokenSource(w.ctx), Base: w.ctx.Value(oauth2.HTTPClient).(*http.Client).Transport}}
	_, err := client.Get(w.apiURL)
	require.ErrorContains(t, err, "oauth2: the token is bound to a key, RFC 9449")
	require.Equal(t, []string{"token: yes"}, w.take(), "nothing is sent to the API")
}

// Another origin receives neither the token nor a proof.
func TestDPoPStaysOnItsOrigin(t *testing.T) {
	w := newDPoPWorld(t, false)
	var stray http.Header
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { stray = req.Header }))
	defer other.Close()
	w.onAPI = http.RedirectHandler(other.URL, http.StatusTemporaryRedirect)
	for name, client := range w.clients() {
		w.get(client)
		require.NotNil(t, stray)
		require.Empty(t, stray.Values("Authorization"), name)
		require.Empty(t, stray.Values("DPoP"), name)
	}
}

func TestAuthorize(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.api.SetDPoPNonce("api-1")
	plain := w.ctx.Value(oauth2.HTTPClient).(*http.Client)
	s := w.conf.Source(w.ctx)
	send := func() *http.Response {
		req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.apiURL+"/x", http.NoBody)
		require.NoError(t, err)
		req.Header = nil
		require.NoError(t, s.Authorize(req))
		resp, err := plain.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp
	}
	resp, another := send(), send()
	require.True(t, s.AdoptNonce(resp))
	require.True(t, s.AdoptNonce(another), "it was sent before the nonce came")
	resp = send()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.False(t, s.AdoptNonce(resp))
	require.Equal(t, []string{"token: yes", "api: use_dpop_nonce", "api: use_dpop_nonce", "api: yes"}, w.take())
	resp.StatusCode, resp.Header = http.StatusUnauthorized, another.Header
	require.False(t, s.AdoptNonce(resp), "it has used that nonce")

	require.False(t, s.AdoptNonce(nil))
	require.False(t, s.AdoptNonce(&http.Response{Header: resp.Header}))
	require.False(t, (*Source)(nil).AdoptNonce(resp))
	require.EqualError(t, s.Authorize(nil), "oauth2: the request has no URL")
	require.EqualError(t, s.Authorize(new(http.Request)), "oauth2: the request has no URL")
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.apiURL, http.NoBody)
	require.NoError(t, err)
	require.Error(t, (*Source)(nil).Authorize(req))

	endpoint := newTokenEndpoint(reply{body: `{"access_token":"a"}`})
	conf := endpoint.config()
	bearer := conf.Source(t.Context())
	require.NoError(t, bearer.Authorize(req))
	require.Equal(t, "Bearer a", req.Header.Get("Authorization"))
	require.Empty(t, req.Header.Values("DPoP"))
}

func TestDPoPEchoIsMasked(t *testing.T) {
	var proof string
	conf := &Config{
		ClientID: "client", ClientSecret: "secret", TokenURL: "https://auth.example/token",
		DPoP: newProofSigner(t), AuthStyle: oauth2.AuthStyleInHeader,
		HTTPClient: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			proof = req.Header.Get("DPoP")
			return reply{status: 400, body: "you sent " + proof}.response(req), nil
		})},
	}
	_, err := conf.Token(t.Context())
	require.Error(t, err)
	require.NotEmpty(t, proof)
	require.NotContains(t, surfaces(err), proof)
	require.NotContains(t, surfaces(err), proof[strings.LastIndex(proof, ".")+1:])
}

// All proofs, also those for the API, are signed with an algorithm that the authorization
// server lists.
func TestK7_ProofsByListedAlgorithms(t *testing.T) {
	t.Parallel()
	w := newDPoPWorld(t, false)
	metadata := ServerMetadata{Issuer: "https://issuer.example", TokenEndpoint: w.conf.TokenURL, DPoPSigningAlgValuesSupported: []string{"ES256", "PS384", "PS256"}}
	conf, err := metadata.Config("client")
	require.NoError(t, err)
	conf.ClientSecret, conf.DPoP = "secret", testkit.NewKey("PS256")
	resp, err := conf.Client(w.ctx).Get(w.apiURL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	for _, request := range append(w.auth.Requests(), w.api.Requests()...) {
		header, _, _ := strings.Cut(request.Header.Get("DPoP"), ".")
		decoded, err := base64.RawURLEncoding.DecodeString(header)
		require.NoError(t, err)
		require.Contains(t, string(decoded), `"alg":"PS256"`)
	}

	conf.DPoP = newProofSigner(t)
	metadata.DPoPSigningAlgValuesSupported = []string{"EdDSA"}
	other, err := metadata.Config("client")
	require.NoError(t, err)
	other.ClientSecret, other.DPoP = conf.ClientSecret, conf.DPoP
	_, err = other.Token(w.ctx)
	require.EqualError(t, err, `oauth2: cannot fetch token: DPoP: no algorithm of the key is listed in the server's metadata: a P-256 key signs with ES256, and the server lists ["EdDSA"]; use another key`)

	// During an outage the list decides, too, whether a request would be the same.
	request, err := newTokenRequest(w.ctx, conf, "", nil)
	require.NoError(t, err)
	require.True(t, request.isFor(conf))
	other.Issuer, other.AuthStyle = conf.Issuer, conf.AuthStyle
	require.False(t, request.isFor(other))
}
