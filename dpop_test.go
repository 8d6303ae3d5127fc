package clientcredentials

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A provenRequest is what a server has learnt from a proof.
type provenRequest struct {
	ID        string `json:"jti"`
	Method    string `json:"htm"`
	URL       string `json:"htu"`
	IssuedAt  int64  `json:"iat"`
	TokenHash string `json:"ath"`
	Nonce     string `json:"nonce"`

	key string // x and y
}

// checkProof verifies a proof as RFC 9449, Section 4.3, says, for keys of P-256.
func checkProof(req *http.Request, accessToken string) (proven provenRequest, err error) {
	values := req.Header.Values("DPoP")
	if len(values) != 1 {
		return proven, fmt.Errorf("%d proofs", len(values))
	}
	parts := strings.Split(values[0], ".")
	if len(parts) != 3 {
		return proven, errors.New("not a JWS")
	}
	var decoded [3][]byte
	for i, part := range parts {
		if decoded[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return proven, err
		}
	}
	var header struct {
		Type      string            `json:"typ"`
		Algorithm string            `json:"alg"`
		Key       map[string]string `json:"jwk"`
	}
	if err := errors.Join(json.Unmarshal(decoded[0], &header), json.Unmarshal(decoded[1], &proven)); err != nil {
		return proven, err
	}
	coordinate := func(name string) *big.Int {
		raw, _ := base64.RawURLEncoding.DecodeString(header.Key[name])
		return new(big.Int).SetBytes(raw)
	}
	public := &ecdsa.PublicKey{Curve: elliptic.P256(), X: coordinate("x"), Y: coordinate("y")}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature := decoded[2]
	proven.key = header.Key["x"] + header.Key["y"]
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	sum := sha256.Sum256([]byte(accessToken))
	hash := base64.RawURLEncoding.EncodeToString(sum[:])
	if accessToken == "" {
		hash = ""
	}
	switch {
	case header.Type != "dpop+jwt", header.Algorithm != "ES256", len(header.Key) != 4:
		return proven, fmt.Errorf("header %+v", header)
	case len(signature) != 64 || !ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])):
		return proven, errors.New("signature")
	case proven.Method != req.Method:
		return proven, errors.New("htm")
	case proven.URL != scheme+"://"+req.Host+req.URL.EscapedPath():
		return proven, fmt.Errorf("htu %s", proven.URL)
	case len(proven.ID) < 16:
		return proven, errors.New("jti")
	case time.Since(time.Unix(proven.IssuedAt, 0)).Abs() > 5*time.Second:
		return proven, errors.New("iat")
	case proven.TokenHash != hash:
		return proven, errors.New("ath")
	}
	return proven, nil
}

// A dpopWorld is an authorization server and an API that want proofs.
type dpopWorld struct {
	auth, api *httptest.Server
	conf      *Config
	ctx       context.Context

	mu        sync.Mutex // protects what follows
	authNonce string     // that is required; empty: none
	apiNonce  string
	complaint string // what the API and the server call a wrong nonce
	tokenType string
	revoked   map[string]bool
	seen      map[string]bool   // jti
	keys      map[string]string // by token
	requests  []string          // what was asked, and how it ended
	bodies    []string
}

func newDPoPWorld(t *testing.T, http2 bool) *dpopWorld {
	t.Helper()
	w := &dpopWorld{
		complaint: "use_dpop_nonce",
		tokenType: "DPoP",
		revoked:   make(map[string]bool),
		seen:      make(map[string]bool),
		keys:      make(map[string]string),
	}
	serve := func(handler http.HandlerFunc) *httptest.Server {
		server := httptest.NewUnstartedServer(handler)
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	w.auth, w.api = serve(w.issue), serve(w.call)
	transport := w.auth.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	transport.TLSClientConfig.RootCAs.AddCert(w.auth.Certificate())
	transport.ForceAttemptHTTP2 = http2
	client := &http.Client{Transport: transport}
	t.Cleanup(client.CloseIdleConnections)
	w.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, client)
	w.conf = &Config{ClientID: "client", ClientSecret: "secret", TokenURL: w.auth.URL + "/token?tenant=1", DPoP: newProofSigner(t)}
	return w
}

func (w *dpopWorld) issue(rw http.ResponseWriter, req *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("DPoP-Nonce", w.authNonce)
	proven, err := w.check(req, "", w.authNonce, "as-")
	if err != nil {
		w.requests = append(w.requests, "token: "+err.Error())
		rw.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(rw, `{"error":%q}`, err.Error())
		return
	}
	token := rand.Text()
	w.keys[token] = proven.key
	w.requests = append(w.requests, "token: yes")
	_, _ = fmt.Fprintf(rw, `{"access_token":%q,"token_type":%q,"expires_in":3600}`, token, w.tokenType)
}

func (w *dpopWorld) call(rw http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "DPoP ")
	proven, err := w.check(req, token, w.apiNonce, "api-")
	if err == nil && (w.keys[token] == "" || w.keys[token] != proven.key || w.revoked[token]) {
		err = errors.New("invalid_token")
	}
	rw.Header().Set("DPoP-Nonce", w.apiNonce)
	if err != nil {
		w.requests = append(w.requests, "api: "+err.Error())
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer, DPoP algs=\"ES256\", error=%q", err.Error()))
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.requests = append(w.requests, "api: yes")
	w.bodies = append(w.bodies, string(body))
}

// check checks a proof and its nonce. It requires that w.mu is held.
func (w *dpopWorld) check(req *http.Request, token, nonce, prefix string) (provenRequest, error) {
	proven, err := checkProof(req, token)
	switch {
	case err != nil:
		return proven, fmt.Errorf("invalid proof: %w", err)
	case w.seen[proven.ID]:
		return proven, errors.New("a proof is used twice")
	case proven.Nonce != "" && !strings.HasPrefix(proven.Nonce, prefix):
		return proven, errors.New("the nonce is another server's")
	}
	w.seen[proven.ID] = true
	if nonce != "" && proven.Nonce != nonce {
		return proven, errors.New(w.complaint)
	}
	return proven, nil
}

func (w *dpopWorld) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

func (w *dpopWorld) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *dpopWorld) clients() map[string]*http.Client {
	return map[string]*http.Client{
		"Client":    w.conf.Client(w.ctx),
		"Transport": {Transport: w.conf.Transport(w.ctx)},
	}
}

func TestDPoP(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, kind := range []string{"Client", "Transport"} {
			t.Run(kind+map[bool]string{true: " HTTP/2"}[http2], func(t *testing.T) {
				t.Parallel()
				w := newDPoPWorld(t, http2)
				client := w.clients()[kind]
				call := func(want ...string) {
					t.Helper()
					resp, err := client.Post(w.api.URL+"/a%2Fb?query=1", "text/plain", strings.NewReader("body"))
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, want, w.take())
				}
				call("token: yes", "api: yes")
				call("api: yes")

				w.set(func() { w.apiNonce = "api-1" })
				call("api: use_dpop_nonce", "api: yes")
				call("api: yes")
				w.set(func() { w.apiNonce = "api-2" })
				call("api: use_dpop_nonce", "api: yes")

				w.set(func() {
					w.authNonce = "as-1"
					for token := range w.keys {
						w.revoked[token] = true
					}
				})
				call("api: invalid_token", "token: use_dpop_nonce", "token: yes", "api: yes")
				for _, body := range w.bodies {
					require.Equal(t, "body", body)
				}
			})
		}
	}
}

func TestDPoPNonceOfASuccess(t *testing.T) {
	w := newDPoPWorld(t, false)
	client := w.conf.Client(w.ctx)
	get := func() {
		resp, err := client.Get(w.api.URL)
		require.NoError(t, err)
		resp.Body.Close()
	}
	w.set(func() { w.authNonce, w.apiNonce = "as-1", "api-1" })
	get()
	require.Equal(t, []string{"token: use_dpop_nonce", "token: yes", "api: use_dpop_nonce", "api: yes"}, w.take())
	// The next nonce comes with an answer that is good.
	w.api.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.call(rw, req)
		rw.Header().Set("DPoP-Nonce", "api-2")
	})
	get()
	w.set(func() { w.apiNonce = "api-2" })
	get()
	require.Equal(t, []string{"api: yes", "api: yes"}, w.take())
}

// A server that finds the proof's time wrong, and gives nonces, takes the time from
// those.
func TestDPoPClockSkew(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.set(func() { w.complaint, w.authNonce, w.apiNonce = "invalid_dpop_proof", "as-1", "api-1" })
	resp, err := w.conf.Client(w.ctx).Get(w.api.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, []string{"token: invalid_dpop_proof", "token: yes", "api: invalid_dpop_proof", "api: yes"}, w.take())
}

// A server that is never content costs one more request.
func TestDPoPNonceIsNeverRight(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.conf.Retry.MaxAttempts = 1
	count := 0
	handler := w.auth.Config.Handler
	w.auth.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.set(func() { count++; w.authNonce = fmt.Sprint("as-", count) })
		handler.ServeHTTP(rw, req)
	})
	_, err := w.conf.Token(w.ctx)
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "use_dpop_nonce", refusal.ErrorCode)
	require.Equal(t, []string{"token: use_dpop_nonce", "token: use_dpop_nonce"}, w.take())

	w.auth.Config.Handler = handler
	w.set(func() { w.authNonce = "" })
	client := w.conf.Client(w.ctx)
	api := w.api.Config.Handler
	w.api.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.set(func() { count++; w.apiNonce = fmt.Sprint("api-", count) })
		api.ServeHTTP(rw, req)
	})
	resp, err := client.Get(w.api.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	require.Equal(t, []string{"token: yes", "api: use_dpop_nonce", "api: use_dpop_nonce"}, w.take())
}

// A body that can't be had again isn't sent again, and the next request has the nonce.
func TestDPoPBodyOnce(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.set(func() { w.apiNonce = "api-1" })
	client := w.conf.Client(w.ctx)
	for _, want := range []int{http.StatusUnauthorized, http.StatusOK} {
		resp, err := client.Post(w.api.URL, "text/plain", io.NopCloser(strings.NewReader("once")))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, want, resp.StatusCode)
	}
	require.Equal(t, []string{"token: yes", "api: use_dpop_nonce", "api: yes"}, w.take())
}

func TestP3e_UnboundToken(t *testing.T) {
	for _, tokenType := range []string{"Bearer", "", "dpop2"} {
		w := newDPoPWorld(t, false)
		w.tokenType = tokenType
		_, err := w.conf.Token(w.ctx)
		require.ErrorContains(t, err, "token_type is not DPoP")
		var fault *ResponseError
		require.ErrorAs(t, err, &fault)
	}
	w := newDPoPWorld(t, false)
	w.tokenType = "dpop"
	w.conf.Strict = true
	resp, err := w.conf.Client(w.ctx).Get(w.api.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode, "the scheme's letter case doesn't matter")
}

func TestDPoPKeys(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		signer crypto.Signer
		want   string
	}{
		"short RSA":   {short, "1024 bits"},
		"odd curve":   {p224, "curve"},
		"no key":      {(*ecdsa.PrivateKey)(nil), "no public key"},
		"that refuse": {refusingSigner{newProofSigner(t)}, "the signer failed: the device is locked"},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := newTokenEndpoint(reply{body: `{"access_token":"a","token_type":"DPoP"}`})
			conf := endpoint.config()
			conf.DPoP = test.signer
			_, err := conf.Token(t.Context())
			require.ErrorContains(t, err, "oauth2: cannot fetch token: DPoP: ")
			require.ErrorContains(t, err, test.want)
			require.Empty(t, endpoint.received())
		})
	}
}

// A refusingSigner has a key and doesn't use it.
type refusingSigner struct{ *ecdsa.PrivateKey }

func (refusingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the device is locked")
}

// A sometimesSigner can be told to refuse.
type sometimesSigner struct {
	*ecdsa.PrivateKey
	mu      sync.Mutex // protects refuses
	refuses bool
}

func (s *sometimesSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses {
		return nil, errors.New("the device is locked")
	}
	return s.PrivateKey.Sign(random, digest, opts)
}

func TestDPoPSignerFailsLater(t *testing.T) {
	w := newDPoPWorld(t, false)
	signer := &sometimesSigner{PrivateKey: newProofSigner(t)}
	w.conf.DPoP = signer
	for name, client := range w.clients() {
		signer.refuses = false
		resp, err := client.Get(w.api.URL)
		require.NoError(t, err)
		resp.Body.Close()
		w.take()
		signer.refuses = true
		body := &closeCounter{Reader: strings.NewReader("x")}
		_, err = client.Post(w.api.URL, "text/plain", body)
		require.ErrorContains(t, err, "oauth2: cannot make the proof for DPoP: the signer failed: the device is locked", name)
		require.Empty(t, w.take(), "nothing is sent without a proof")
		require.EqualValues(t, 1, body.closed.Load(), name)
	}
}

// A TokenSource can't prove anything.
func TestDPoPThroughATokenSource(t *testing.T) {
	w := newDPoPWorld(t, false)
	client := &http.Client{Transport: &Transport{Source: w.conf.TokenSource(w.ctx), Base: w.ctx.Value(oauth2.HTTPClient).(*http.Client).Transport}}
	_, err := client.Get(w.api.URL)
	require.ErrorContains(t, err, "oauth2: the token is bound to a key, RFC 9449")
	require.Equal(t, []string{"token: yes"}, w.take(), "nothing is sent to the API")
}

// Without a proof a bound token is of no use: there is none at another origin.
func TestDPoPStaysOnItsOrigin(t *testing.T) {
	w := newDPoPWorld(t, false)
	var stray http.Header
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { stray = req.Header }))
	defer other.Close()
	w.api.Config.Handler = http.RedirectHandler(other.URL, http.StatusTemporaryRedirect)
	for name, client := range w.clients() {
		resp, err := client.Get(w.api.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Empty(t, stray.Values("Authorization"), name)
		require.Empty(t, stray.Values("DPoP"), name)
	}
}

func TestAuthorize(t *testing.T) {
	w := newDPoPWorld(t, false)
	w.set(func() { w.apiNonce = "api-1" })
	plain := w.ctx.Value(oauth2.HTTPClient).(*http.Client)
	s := w.conf.Source(w.ctx)
	send := func() *http.Response {
		req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.api.URL+"/x", http.NoBody)
		require.NoError(t, err)
		req.Header = nil
		require.NoError(t, s.Authorize(req))
		resp, err := plain.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp
	}
	resp := send()
	require.True(t, s.AdoptNonce(resp))
	require.False(t, s.AdoptNonce(resp), "it has been adopted")
	resp = send()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.False(t, s.AdoptNonce(resp))
	require.Equal(t, []string{"token: yes", "api: use_dpop_nonce", "api: yes"}, w.take())

	require.False(t, s.AdoptNonce(nil))
	require.False(t, s.AdoptNonce(&http.Response{Header: resp.Header}))
	require.False(t, (*Source)(nil).AdoptNonce(resp))
	require.EqualError(t, s.Authorize(nil), "oauth2: the request has no URL")
	require.EqualError(t, s.Authorize(new(http.Request)), "oauth2: the request has no URL")
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.api.URL, http.NoBody)
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
