// Package dpop makes proofs of possession, RFC 9449: a request that carries a bound token,
// and the request for such a token, comes with a proof that the sender has the key.
package dpop

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
)

// Header is the name of the header field for a proof, RFC 9449, Section 4.1.
const Header = "DPoP"

// A Proof is what one request is proved with, RFC 9449, Section 4.2.
type Proof struct {
	Method      string // empty: GET
	URL         *url.URL
	Host        string // of the request, if another than that in URL
	AccessToken string // empty: the request is for a token
	Nonce       string // of the server; empty: it has given none
}

type claims struct {
	ID        string `json:"jti"`
	Method    string `json:"htm"`
	URL       string `json:"htu"`
	IssuedAt  int64  `json:"iat"`
	TokenHash string `json:"ath,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
}

// A Key is a private key that tokens are bound to.
type Key struct{ *jws.Key }

// NewKey returns the key of a signer, or says why it can't be used. It signs with the first
// of its algorithms that the server lists (dpop_signing_alg_values_supported, RFC 9449,
// Section 5.1). Without a list, it signs with the first of all.
func NewKey(signer crypto.Signer, listed ...string) (*Key, error) {
	key, err := jws.NewKey(signer, "", listed...)
	if err != nil {
		return nil, err
	}
	return &Key{key}, nil
}

// Prove returns the proof as a JWT signed by the key, for one request that is sent now. It
// takes no longer than ctx allows, even if the signer, such as one for a key in a KMS, takes
// longer.
func (k *Key) Prove(ctx context.Context, p Proof, now time.Time) (string, error) {
	if k.IsLocal() {
		return k.prove(p, now)
	}
	signed, err := bounded.Do(ctx, func(context.Context) (string, error) { return k.prove(p, now) })
	var failure *bounded.FailureError
	if errors.As(err, &failure) {
		err = fmt.Errorf("the signer %w", err)
	}
	return signed, err
}

func (k *Key) prove(p Proof, now time.Time) (string, error) {
	payload := claims{
		ID:       rand.Text(), // 130 bits; Section 4.2 asks for 96.
		Method:   p.Method,
		URL:      targetURL(p.URL, p.Host),
		IssuedAt: now.Unix(),
		Nonce:    p.Nonce,
	}
	if payload.Method == "" {
		payload.Method = http.MethodGet
	}
	if p.AccessToken != "" {
		payload.TokenHash = jws.Digest([]byte(p.AccessToken))
	}
	return k.Sign(map[string]any{"typ": "dpop+jwt", "jwk": k.JWK()}, payload)
}

// targetURL returns the htu of RFC 9449, Section 4.2: the address that net/http sends,
// without query and fragment, normalised as Section 4.3 asks verifiers to do. host is the
// request's Host, which may be empty.
func targetURL(u *url.URL, host string) string {
	scheme := ascii.Lower(u.Scheme)
	if host == "" {
		host = u.Host
	}
	path := u.EscapedPath()
	if u.Opaque != "" {
		// net/http sends it as it is. An authority in it replaces the Host, RFC 9112,
		// Section 3.2.2.
		path, _, _ = strings.Cut(u.Opaque, "?")
		if rest, found := strings.CutPrefix(path, "//"); found {
			host, path, _ = strings.Cut(rest, "/")
			path = "/" + path
		}
	}
	if path == "" {
		path = "/"
	}
	return scheme + "://" + canonicalHost(scheme, host) + path
}

// canonicalHost returns a host in the form in which net/http sends it, in lower case, and
// without the scheme's default port.
func canonicalHost(scheme, host string) string {
	if !isASCII(host) || strings.Contains(host, "%") { // After the per cent sign, the zone of an IPv6 address.
		host = asSent(host)
	}
	host = ascii.Lower(host)
	name, port, err := net.SplitHostPort(host)
	if err == nil && (scheme == "https" && port == "443" || scheme == "http" && port == "80" || port == "") {
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	return host
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// asSent returns what net/http makes of an internationalised host, Punycode (RFC 5891), or of
// an IPv6 address with a zone. It has no function for that, so this lets it write a request.
func asSent(host string) string {
	var wire bytes.Buffer
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: host, Path: "/"}, Header: http.Header{"User-Agent": nil}}
	if req.Write(&wire) != nil {
		return host // The request can't be sent either.
	}
	_, rest, _ := strings.Cut(wire.String(), "\r\nHost: ")
	sent, _, _ := strings.Cut(rest, "\r\n")
	return sent
}

const (
	// maxNonces bounds a Nonces. A client talks to one API and one authorization
	// server, or to a few: at the bound the cache starts anew.
	maxNonces = 100

	// maxNonce bounds the length of a nonce that is adopted.
	maxNonce = 1 << 10
)

// A Nonces remembers the nonces of servers. Each is for the server that it came from and
// no other, RFC 9449, Section 9. The zero value is empty and ready for use, a nil Nonces
// remembers nothing, and both are safe for concurrent use.
type Nonces struct {
	mu sync.Mutex // protects of
	of map[origin.Origin]string
}

// Get returns the nonce for a server; empty: there is none.
func (n *Nonces) Get(server origin.Origin) string {
	if n == nil {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.of[server]
}

// Adopt remembers the nonce in an answer of server, whether or not it was successful, RFC
// 9449, Section 8.2. It reports whether that is a new one, unlike the one that was used.
func (n *Nonces) Adopt(server origin.Origin, header http.Header, used string) bool {
	nonce := header.Get("DPoP-Nonce")
	if n == nil || !isNonce(nonce) || nonce == used {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of == nil || len(n.of) >= maxNonces {
		n.of = make(map[origin.Origin]string)
	}
	n.of[server] = nonce
	return true
}

// NonceIn returns the nonce in the proof that a request was sent with; empty: none.
func NonceIn(header http.Header) string {
	payload, _ := jws.UnverifiedPayload(header.Get(Header))
	var proof claims
	_ = json.Unmarshal(payload, &proof) // We have made it.
	return proof.Nonce
}

// isNonce reports whether s is a nonce by the grammar of RFC 9449, Section 8.1.
func isNonce(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}

// AsksForNonce reports whether an API's answer, which came with a new nonce, asks for the
// same request with a proof that contains it, RFC 9449, Section 9.
func AsksForNonce(resp *http.Response) bool {
	code, _ := challenge.Error(resp.Header.Values("WWW-Authenticate"), "DPoP")
	return resp.StatusCode == http.StatusUnauthorized && IsNonceError(code)
}

// IsNonceError reports whether a server that answers with that error code, and with a new
// nonce, may accept the same request with that nonce. Some servers say only that the
// proof is invalid, if its time is off; with a nonce they don't need to compare clocks.
func IsNonceError(code string) bool {
	return code == "use_dpop_nonce" || code == "invalid_dpop_proof"
}
