package clientauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// published returns the keys in the set.
func published(t *testing.T, set *JWKSet) []map[string]any {
	t.Helper()
	return keysIn(t, must(set.JSON(t.Context())))
}

func keysIn(t *testing.T, document []byte) []map[string]any {
	t.Helper()
	var parsed map[string][]map[string]any
	require.NoError(t, json.Unmarshal(document, &parsed))
	require.Equal(t, []string{"keys"}, slices.Collect(maps.Keys(parsed)))
	return parsed["keys"]
}

// kids returns the kid of each key in the set.
func kids(t *testing.T, set *JWKSet) (all []any) {
	t.Helper()
	for _, key := range published(t, set) {
		all = append(all, key["kid"])
	}
	return all
}

// Each kind of key is published with the members that servers need, and with no others.
func TestK9_Members(t *testing.T) {
	t.Parallel()
	rsaKey, ec, ed := testkit.NewKey("RS256"), testkit.NewKey("ES384"), testkit.NewKey("EdDSA")
	own := newValidPair()
	thumbprint := func(signer crypto.Signer) string { return must(jws.NewKey(signer, "")).Thumbprint() }
	named := func(signer crypto.Signer, kid, algorithm string) KeySource {
		return func(context.Context) (*SigningKey, error) {
			return &SigningKey{Signer: signer, KeyID: kid, Algorithm: algorithm}, nil
		}
	}
	pss := KeyFile("../internal/jws/testdata/rsa-pss.pkcs8.pem")
	for name, test := range map[string]struct {
		source  KeySource
		members string // besides those of the public key
	}{
		"RSA":                {SignerKey(rsaKey), `"kid":"` + thumbprint(rsaKey) + `"`},
		"RSA with algorithm": {named(rsaKey, "1", "PS256"), `"kid":"1","alg":"PS256"`},
		"RSA-PSS":            {pss, `"kid":"` + thumbprint(must(pss(t.Context())).Signer) + `"`},
		"EC":                 {SignerKey(ec), `"kid":"` + thumbprint(ec) + `","alg":"ES384"`},
		"Ed25519":            {SignerKey(ed), `"kid":"` + thumbprint(ed) + `"`},
		"Ed25519 with alg":   {named(ed, "", "EdDSA"), `"kid":"` + thumbprint(ed) + `","alg":"EdDSA"`},
		"ThumbprintKeyID":    {ThumbprintKeyID(SignerKey(ec)), `"kid":"` + thumbprint(ec) + `","alg":"ES384"`},
		"its own KeyID":      {ThumbprintKeyID(named(ec, "1", "")), `"kid":"1","alg":"ES384"`},
		"certificate": {
			CertificateKey(certificate(own.Certificate)),
			`"kid":"` + thumbprint(own.PrivateKey.(crypto.Signer)) + `","alg":"ES256","x5c":["` + base64.StdEncoding.EncodeToString(own.Leaf.Raw) + `"],"x5t#S256":"` + jws.Digest(own.Leaf.Raw) + `"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			signing := must(test.source(t.Context()))
			var want map[string]any
			require.NoError(t, json.Unmarshal(must(jws.NewKey(signing.Signer, "")).JWK(), &want))
			require.NoError(t, json.Unmarshal([]byte(`{"use":"sig",`+test.members+`}`), &want))
			require.Equal(t, []map[string]any{want}, published(t, JWKS(test.source)))
		})
	}
}

// Nothing private is published, whatever the file with the key looks like.
func TestK9_NothingPrivate(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("../internal/jws/testdata")
	require.NoError(t, err)
	good := 0
	for _, f := range files {
		source := KeyFile("../internal/jws/testdata/" + f.Name())
		document, err := JWKS(source).JSON(t.Context())
		if err != nil {
			continue // It isn't a key that can be used.
		}
		good++
		for _, key := range keysIn(t, document) {
			for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
				require.NotContains(t, key, member, f.Name())
			}
		}
	}
	require.Greater(t, good, 5)
	key, keyText := newKey()
	set := JWKS(SignerKey(key))
	document := must(set.JSON(t.Context()))
	requireHidden(t, string(document)+surfaces(set)+surfaces(*must(set.get(t.Context()))), keyCanaries(key, keyText)...)
}

func TestK9_Mistakes(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	broken := errors.New("no session")
	missing := t.TempDir() + "/missing"
	for name, test := range map[string]struct {
		set *JWKSet
		err string
	}{
		"no keys":               {JWKS(), "there is no key to publish"},
		"a nil source":          {JWKS(SignerKey(key), nil), "there is no source of a key"},
		"no key":                {JWKS(func(context.Context) (*SigningKey, error) { return nil, nil }), "returned no key"},
		"no signer":             {JWKS(ThumbprintKeyID(SignerKey(nil))), "returned no key"},
		"a source that fails":   {JWKS(SignerKey(key), func(context.Context) (*SigningKey, error) { return nil, broken }), "no session"},
		"a source that panics":  {JWKS(func(context.Context) (*SigningKey, error) { panic(canary) }), "panicked with a value of type string"},
		"a shared secret":       {JWKS(KeyBytes([]byte(`{"kty":"oct","k":"` + canary + `"}`))), "kty is oct"},
		"a secret in a file":    {JWKS(SignerKey(key), KeyFile(file(t, canary))), "neither PEM nor a JWK"},
		"only a missing file":   {JWKS(KeyFile(missing)), "there is no key to publish"},
		"a wrong algorithm":     {JWKS(func(context.Context) (*SigningKey, error) { return &SigningKey{Signer: key, Algorithm: "RS256"}, nil }), "RS256 doesn't fit a P-256 key"},
		"the algorithm of HMAC": {JWKS(func(context.Context) (*SigningKey, error) { return &SigningKey{Signer: key, Algorithm: "HS256"}, nil }), "HS256 doesn't fit a P-256 key"},
	} {
		_, err := test.set.JSON(t.Context())
		require.ErrorContains(t, err, test.err, name)
		requireHidden(t, err.Error(), canary)
		w := httptest.NewRecorder()
		test.set.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, name)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"), name)
		require.Equal(t, "the keys can't be read\n", w.Body.String(), "everybody can read this")
	}
}

func TestK9_Handler(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	source := SignerKey(key)
	set := JWKS(source, ThumbprintKeyID(source), SignerKey(key))
	srv := httptest.NewServer(set)
	t.Cleanup(srv.Close)
	do := func(method, etag string) (*http.Response, string) {
		req := must(http.NewRequestWithContext(t.Context(), method, srv.URL+"/jwks.json", nil))
		if etag != "" {
			req.Header.Set("If-None-Match", etag)
		}
		resp := must(srv.Client().Do(req))
		defer resp.Body.Close()
		return resp, string(must(io.ReadAll(resp.Body)))
	}
	resp, body := do(http.MethodGet, "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "application/jwk-set+json", resp.Header.Get("Content-Type"))
	require.Equal(t, "public, max-age=300", resp.Header.Get("Cache-Control"))
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	require.Len(t, keysIn(t, []byte(body)), 1, "a key is published once")

	etag := resp.Header.Get("ETag")
	resp, body = do(http.MethodGet, etag)
	require.Equal(t, http.StatusNotModified, resp.StatusCode)
	require.Empty(t, body)
	resp, body = do(http.MethodHead, "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, etag, resp.Header.Get("ETag"))
	require.Empty(t, body)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodOptions, "get"} {
		resp, body = do(method, "")
		require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
		require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
		require.NotContains(t, body, "keys")
	}

	document := must(set.JSON(t.Context()))
	clear(document)
	require.Len(t, published(t, set), 1, "what a caller does to the result has no effect")
}

// A scriptedKey is a source whose answer the test replaces.
type scriptedKey struct {
	answer atomic.Pointer[func(context.Context) (*SigningKey, error)]
}

func (s *scriptedKey) set(answer func(context.Context) (*SigningKey, error)) { s.answer.Store(&answer) }

func (s *scriptedKey) key(ctx context.Context) (*SigningKey, error) { return (*s.answer.Load())(ctx) }

func namedKey(signer crypto.Signer, kid string) func(context.Context) (*SigningKey, error) {
	return func(context.Context) (*SigningKey, error) { return &SigningKey{Signer: signer, KeyID: kid}, nil }
}

// A key that can't be read stays as it was.
func TestK9_UnreadableKeys(t *testing.T) {
	t.Parallel()
	signer, _ := newKey()
	for name, test := range map[string]struct {
		answer func(context.Context) (*SigningKey, error)
		want   []any
	}{
		"another":         {namedKey(signer, "c"), []any{"a", "c"}},
		"half written":    {KeyFile(file(t, "-----BEGIN PRIVATE KEY-----\nMIG")), []any{"a", "b"}},
		"empty":           {KeyFile(file(t, "")), []any{"a", "b"}},
		"forbidden":       {func(context.Context) (*SigningKey, error) { return nil, os.ErrPermission }, []any{"a", "b"}},
		"a shared secret": {KeyBytes([]byte(`{"kty":"oct","k":"` + canary + `"}`)), []any{"a", "b"}},
		"panic":           {func(context.Context) (*SigningKey, error) { panic("x") }, []any{"a", "b"}},
		"slow":            {func(ctx context.Context) (*SigningKey, error) { <-ctx.Done(); return nil, ctx.Err() }, []any{"a", "b"}},
		"deaf":            {func(context.Context) (*SigningKey, error) { time.Sleep(time.Minute); return nil, errors.New("late") }, []any{"a", "b"}},
		"missing":         {KeyFile(t.TempDir() + "/missing"), []any{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T) {
				var second scriptedKey
				second.set(namedKey(signer, "b"))
				set := JWKS(namedKey(signer, "a"), second.key)
				require.Equal(t, []any{"a", "b"}, kids(t, set))
				second.set(test.answer)
				require.Equal(t, []any{"a", "b"}, kids(t, set), "it is read once a second")
				time.Sleep(2 * time.Second)
				require.Equal(t, test.want, kids(t, set))
				start := time.Now()
				require.Equal(t, test.want, kids(t, set))
				require.Zero(t, time.Since(start), "it isn't read again at once")
				second.set(namedKey(signer, "d"))
				time.Sleep(2 * time.Second)
				require.Equal(t, []any{"a", "d"}, kids(t, set))
				time.Sleep(time.Minute) // A deaf source may still be running.
			})
		})
	}
}

// A key is dropped if its file is still missing ten seconds after that was first seen. A program
// may remove the file before it writes the new one.
func TestK9_MissingFile(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T) {
		start := time.Now()
		signer, _ := newKey()
		var second scriptedKey
		set := JWKS(namedKey(signer, "a"), second.key)
		for _, step := range []struct {
			at   time.Duration
			key  string // "": its file is missing
			want []any
		}{
			{0, "", []any{"a"}},
			{2 * time.Second, "b", []any{"a", "b"}},
			{4 * time.Second, "", []any{"a", "b"}},
			{6 * time.Second, "c", []any{"a", "c"}},
			{8 * time.Second, "", []any{"a", "c"}},
			{16 * time.Second, "", []any{"a", "c"}},
			{18 * time.Second, "", []any{"a"}},
			{20 * time.Second, "", []any{"a"}},
			{22 * time.Second, "b", []any{"a", "b"}},
			{time.Hour, "", []any{"a", "b"}},
			{2 * time.Hour, "", []any{"a"}},
		} {
			time.Sleep(step.at - time.Since(start))
			second.set(namedKey(signer, step.key))
			if step.key == "" {
				second.set(func(context.Context) (*SigningKey, error) { return nil, os.ErrNotExist })
			}
			require.Equal(t, step.want, kids(t, set), step.at)
		}
	})
}

// If all files are gone, nothing is published, and no old key comes back.
func TestK9_AllKeysAreGone(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T) {
		signer, _ := newKey()
		var only scriptedKey
		only.set(namedKey(signer, "a"))
		set := JWKS(only.key)
		require.Equal(t, []any{"a"}, kids(t, set))
		only.set(KeyFile(t.TempDir() + "/missing"))
		time.Sleep(2 * time.Second)
		require.Equal(t, []any{"a"}, kids(t, set))
		time.Sleep(10 * time.Second)
		for range 2 {
			_, err := set.JSON(t.Context())
			require.ErrorIs(t, err, errNoKeys)
		}
		only.set(func(context.Context) (*SigningKey, error) { return nil, errors.New("half written") })
		_, err := set.JSON(t.Context())
		require.ErrorContains(t, err, "half written")
		only.set(namedKey(signer, "b"))
		require.Equal(t, []any{"b"}, kids(t, set))
	})
}

// A caller that leaves doesn't keep others from the keys, and a source that hangs doesn't
// keep callers waiting that have a set.
func TestK9_CallersThatLeave(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T) {
		signer, _ := newKey()
		slow := func(kid string) func(context.Context) (*SigningKey, error) {
			return func(ctx context.Context) (*SigningKey, error) {
				select {
				case <-time.After(5 * time.Second):
					return &SigningKey{Signer: signer, KeyID: kid}, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
		}
		var only scriptedKey
		only.set(slow("a"))
		set := JWKS(only.key)
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := set.JSON(hasty)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		start := time.Now()
		require.Equal(t, []any{"a"}, kids(t, set))
		require.Equal(t, 4*time.Second, time.Since(start), "the first caller's reading is used")

		time.Sleep(2 * time.Second)
		only.set(slow("b"))
		go func() { _, _ = set.JSON(context.WithoutCancel(t.Context())) }()
		time.Sleep(time.Second)
		start = time.Now()
		require.Equal(t, []any{"a"}, kids(t, set))
		require.Zero(t, time.Since(start))
		time.Sleep(4*time.Second + time.Millisecond)
		require.Equal(t, []any{"b"}, kids(t, set))

		// A source that is deaf for the first reading.
		only.set(func(context.Context) (*SigningKey, error) { time.Sleep(time.Minute); return nil, errors.New("late") })
		_, err = JWKS(only.key).JSON(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "reading the keys took longer than 10s")
		time.Sleep(time.Minute)
	})
}

// A rotation as the documentation describes it. At no moment does the client sign with a key
// that the server can't have.
func TestK9_Rotation(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		current, next := dir+"/current.pem", dir+"/next.pem"
		keys := []*ecdsa.PrivateKey{testkit.NewKey("ES256").(*ecdsa.PrivateKey), testkit.NewKey("ES256").(*ecdsa.PrivateKey)}
		write(t, current, testkit.KeyPEM(keys[0]))
		source := ThumbprintKeyID(KeyFile(current))
		set := JWKS(source, KeyFile(next))
		srv := &cct.AuthorizationServer{}
		fetch := func() {
			srv.Clients = []cct.Client{{ID: "id"}}
			for _, jwk := range published(t, set) {
				for _, key := range keys {
					if must(jws.NewKey(key, "")).Thumbprint() == jwk["kid"] {
						srv.Clients[0].PublicKeys = append(srv.Clients[0].PublicKeys, key.Public())
					}
				}
			}
			require.Len(t, srv.Clients[0].PublicKeys, len(published(t, set)))
		}
		conf := &clientcredentials.Config{
			ClientID: "id", TokenURL: "https://auth.example/token", ClientAuth: &PrivateKeyJWT{Key: source},
			HTTPClient: &http.Client{Transport: cct.HandlerTransport(srv)}, Retry: clientcredentials.RetryPolicy{MaxAttempts: 1},
		}
		works := func(key int) {
			t.Helper()
			_, err := conf.Token(t.Context())
			require.NoError(t, err)
			requests := srv.Requests()
			header, _ := decode(t, requests[len(requests)-1].Form.Get("client_assertion"))
			require.Equal(t, must(jws.NewKey(keys[key], "")).Thumbprint(), header["kid"])
		}
		fetch()
		works(0)
		write(t, next, testkit.KeyPEM(keys[1])) // Publish the next key.
		works(0)
		time.Sleep(time.Hour)
		fetch()
		require.Len(t, srv.Clients[0].PublicKeys, 2)
		require.NoError(t, os.Rename(next, current)) // Sign with it.
		works(1)
		time.Sleep(time.Hour)
		fetch()
		require.Len(t, srv.Clients[0].PublicKeys, 1)
		works(1)
	})
}
