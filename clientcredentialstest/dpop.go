package clientcredentialstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxProofAge is how far the time of a proof may be in the past or in the future.
const maxProofAge = 5 * time.Minute

// proofAlgorithms are the algorithms that proofs may be signed with.
var proofAlgorithms = []string{"ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"}

// A proof is the content of the header field DPoP (RFC 9449, Section 4).
type proof struct {
	jkt      string // the thumbprint of its key
	id       string // its jti
	nonce    string
	issuedAt time.Time
}

// readProof returns the proof of a request, or what is wrong with it. It makes the
// checks of RFC 9449, Section 4.3, except those for which a server has to remember
// something. accessToken is empty for a token request.
func readProof(r *http.Request, accessToken string) (p proof, fault string) {
	values := r.Header.Values("DPoP")
	switch len(values) {
	case 0:
		return p, "there is no proof"
	case 1:
	default:
		return p, "there is more than one proof"
	}
	var claims map[string]any
	j, ok := parseJWT(values[0], &claims)
	if !ok {
		return p, "the proof is not a JWT"
	}
	jwk, _ := j.header["jwk"].(map[string]any)
	var key crypto.PublicKey
	key, p.jkt = publicKey(jwk)
	p.id, _ = claims["jti"].(string)
	p.nonce, _ = claims["nonce"].(string)
	htu, _ := claims["htu"].(string)
	iat, _ := claims["iat"].(float64) // Without an iat, the proof is too old.
	p.issuedAt = time.Unix(int64(iat), 0)
	switch {
	case j.header["typ"] != "dpop+jwt":
		return p, "typ is not dpop+jwt"
	case !slices.Contains(proofAlgorithms, j.algorithm()):
		return p, "alg must be one of " + strings.Join(proofAlgorithms, ", ")
	case j.header["crit"] != nil:
		return p, "crit is not understood" // RFC 7515, Section 4.1.11.
	case key == nil:
		return p, "jwk must be a public key of RSA, ECDSA or Ed25519"
	case !j.isSignedBy(key):
		return p, "the signature does not match jwk"
	case p.id == "":
		return p, "jti is missing"
	case claims["htm"] != r.Method:
		return p, "htm is not the method of the request"
	case !isTarget(htu, r):
		return p, "htu is not the URL of the request without query and fragment"
	case time.Since(p.issuedAt).Abs() > maxProofAge:
		return p, "iat is more than 5 minutes off"
	case accessToken != "" && claims["ath"] != base64urlSHA256([]byte(accessToken)):
		return p, "ath is not the hash of the token"
	}
	return p, ""
}

// use reports whether p is used for the first time, and remembers it.
func (p proof) use(proofs *used) bool {
	return proofs.add(p.jkt+" "+p.id, time.Now(), p.issuedAt.Add(maxProofAge))
}

const (
	proofRule  = "RFC 9449, Section 4.3"
	usedProof  = "the proof has been used before"
	wrongNonce = "the proof must contain the nonce that comes with this answer"
)

// offerNonce adds a nonce to an answer and forbids caching it: RFC 9449, Sections 8
// and 9.
func offerNonce(header http.Header, nonce string) {
	if nonce != "" {
		header.Set("DPoP-Nonce", nonce)
		header.Set("Cache-Control", "no-store")
	}
}

// publicKey returns the public key in a JWK (RFC 7518, Section 6; RFC 8037, Section
// 2) and its thumbprint (RFC 7638), or nil if the JWK is private, malformed or too weak.
func publicKey(jwk map[string]any) (key crypto.PublicKey, thumbprint string) {
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth"} {
		if _, ok := jwk[private]; ok {
			return nil, ""
		}
	}
	number := func(name string) []byte {
		text, _ := jwk[name].(string)
		raw, _ := base64.RawURLEncoding.Strict().DecodeString(text)
		return raw
	}
	var canonical string
	switch jwk["kty"] {
	case "EC":
		name, _ := jwk["crv"].(string)
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[name]
		x, y := number("x"), number("y")
		if curve == nil || len(x) != len(y) { // Both have the full length: RFC 7518, Section 6.2.1.2.
			return nil, ""
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, ""
		}
		key = public
		canonical = fmt.Sprintf(`{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, name, base64url(x), base64url(y))
	case "RSA":
		n, e := number("n"), number("e")
		modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
		// RFC 7518: at least 2048 bits (Sections 3.3 and 3.5), no leading zeros (Section 2).
		if modulus.BitLen() < 2048 || exponent.BitLen() > 31 || exponent.Sign() == 0 || n[0] == 0 || e[0] == 0 {
			return nil, ""
		}
		key = &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}
		canonical = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, base64url(e), base64url(n))
	case "OKP":
		x := number("x")
		if jwk["crv"] != "Ed25519" || len(x) != ed25519.PublicKeySize {
			return nil, ""
		}
		key = ed25519.PublicKey(x)
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, base64url(x))
	}
	return key, base64urlSHA256([]byte(canonical))
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func base64urlSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return base64url(sum[:])
}

// isTarget reports whether htu is the URL of r without query and fragment (RFC 9449,
// Section 4.2), after the normalization of RFC 3986, Sections 6.2.2 and 6.2.3.
func isTarget(htu string, r *http.Request) bool {
	u, err := url.Parse(htu)
	if err != nil || u.User != nil || strings.ContainsAny(htu, "?#") {
		return false
	}
	// In memory, a request for https looks like one for http.
	return (u.Scheme == "https" || u.Scheme == "http" && r.TLS == nil) &&
		normalHost(u.Scheme, u.Host) == normalHost(u.Scheme, r.Host) &&
		normalPath(u) == normalPath(r.URL)
}

func normalHost(scheme, host string) string {
	port := map[string]string{"https": ":443", "http": ":80"}[scheme]
	return strings.TrimSuffix(strings.ToLower(host), port)
}

var percentEncoded = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

func normalPath(u *url.URL) string {
	if u.Path == "" {
		return "/"
	}
	return percentEncoded.ReplaceAllStringFunc(u.EscapedPath(), func(code string) string {
		c, _ := strconv.ParseUint(code[1:], 16, 8)
		if unreserved.MatchString(string(rune(c))) {
			return string(rune(c))
		}
		return strings.ToUpper(code)
	})
}

// unreserved characters need no encoding: RFC 3986, Section 2.3.
var unreserved = regexp.MustCompile(`^[A-Za-z0-9._~-]$`)
