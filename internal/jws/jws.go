// Package jws makes JSON Web Signatures (RFC 7515) in compact serialization, with
// any crypto.Signer or a shared secret. It has no function to verify them.
//
// Its errors have no prefix: the caller adds "oauth2: " and says where the key came
// from. They never quote a key, a secret or the signed data.
package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

const (
	minRSABits = 2048 // the least that RFC 7518, Sections 3.3 and 3.5, allow
	maxListed  = 200  // what an error quotes of the server's list, in bytes
)

// A keyKind is a kind of key, in the words that errors use.
type keyKind string

const (
	rsaKey     keyKind = "an RSA key"
	pssKind    keyKind = "an RSA-PSS key" // may be followed by " for " and a hash
	p256Key    keyKind = "a P-256 key"
	p384Key    keyKind = "a P-384 key"
	p521Key    keyKind = "a P-521 key"
	ed25519Key keyKind = "an Ed25519 key"
	secretKey  keyKind = "a secret"
)

type algorithm struct {
	name string // alg in the header
	kind keyKind
	hash crypto.Hash // 0: the message is signed without hashing it first
	pss  bool
}

// algorithms are defined in RFC 7518, Section 3.1, RFC 8037, Section 3.1, and RFC
// 9864, Section 2.2. The first one for a kind of key is its default.
var algorithms = []algorithm{
	{"RS256", rsaKey, crypto.SHA256, false}, // Nearly every server accepts it.
	{"RS384", rsaKey, crypto.SHA384, false},
	{"RS512", rsaKey, crypto.SHA512, false},
	{"PS256", rsaKey, crypto.SHA256, true},
	{"PS384", rsaKey, crypto.SHA384, true},
	{"PS512", rsaKey, crypto.SHA512, true},
	{"ES256", p256Key, crypto.SHA256, false},
	{"ES384", p384Key, crypto.SHA384, false},
	{"ES512", p521Key, crypto.SHA512, false},
	{"EdDSA", ed25519Key, 0, false},
	{"Ed25519", ed25519Key, 0, false}, // The newer name of EdDSA with this curve.
	{"HS256", secretKey, crypto.SHA256, false},
	{"HS384", secretKey, crypto.SHA384, false},
	{"HS512", secretKey, crypto.SHA512, false},
}

// fits reports whether a key of that kind can sign with a.
func (a algorithm) fits(kind keyKind) bool {
	return a.kind == kind || a.pss && (kind == pssKind || kind == pssKind+keyKind(" for "+a.hash.String()))
}

// ErrNotListed is the error if the server lists algorithms, but none of the key's.
var ErrNotListed = errors.New("no algorithm of the key is listed in the server's metadata")

// fitting returns the algorithms that a key of that kind can sign with, its default first.
func fitting(kind keyKind) (all []algorithm) {
	for _, a := range algorithms {
		if a.fits(kind) {
			all = append(all, a)
		}
	}
	return all
}

// choose returns the algorithm with that name, or the first that fits the key if name is
// empty. If listed isn't empty, the algorithm must be among those.
func choose(kind keyKind, name string, listed []string) (algorithm, error) {
	shown := "the algorithm" // An unknown name may be a secret, so it isn't quoted.
	if slices.ContainsFunc(algorithms, func(a algorithm) bool { return a.name == name }) {
		shown = name
	}
	fitting := fitting(kind)
	possible := fitting
	if name != "" {
		possible = slices.DeleteFunc(slices.Clone(fitting), func(a algorithm) bool { return a.name != name })
	}
	switch {
	case len(possible) == 0:
		return algorithm{}, fmt.Errorf("%s doesn't fit %s; use %s", shown, kind, names(fitting))
	case len(listed) == 0:
		return possible[0], nil
	case kind == ed25519Key:
		possible = append(possible, fitting...) // They are two names of one algorithm.
	}
	for _, a := range possible {
		if slices.Contains(listed, a.name) {
			return a, nil
		}
	}
	signs := string(kind) + " signs with " + names(fitting)
	if name != "" && kind != ed25519Key {
		signs = string(kind) + " whose alg is " + name // It could do more.
	}
	return algorithm{}, fmt.Errorf("%w: %s, and the server lists %s; use another key", ErrNotListed, signs, redact.Quote(listed, maxListed))
}

// names returns the names of algorithms, for an error.
func names(algorithms []algorithm) string {
	var all []string
	for _, a := range algorithms {
		all = append(all, a.name)
	}
	return strings.Join(all, ", ")
}

// A Key signs. It is safe for concurrent use if its signer is. The signers of the
// standard library are.
//
// Only the closure sign holds the private key or the secret: fmt and encoding/json
// can't look into it.
type Key struct {
	algorithm  string
	only       bool   // the key can sign with no other algorithm
	jwk        string // canonical, RFC 7638, Section 3; empty for a secret
	thumbprint string
	sign       func(message []byte) (signature []byte, err error)
	local      bool // signing is a computation in this process
}

// NewKey returns a key that signs with signer, which may run in another process or
// on another machine. An empty algorithm means RS256 for RSA, PS256 or the one of the hash
// for RSA-PSS, EdDSA for Ed25519, and for ECDSA the one of the curve: ES256, ES384 or ES512.
//
// If the server lists its algorithms, pass them as listed: then the key uses the first of
// its algorithms that is listed, and it is ErrNotListed if there is none.
//
// NewKey tries a private key of the standard library once. With any other signer,
// each signature is verified before it is used.
func NewKey(signer crypto.Signer, algorithm string, listed ...string) (*Key, error) {
	if signer == nil {
		return nil, errors.New("there is no signer")
	}
	public, kind, jwk, err := describe(signer)
	if err != nil {
		return nil, err
	}
	a, err := choose(kind, algorithm, listed)
	if err != nil {
		return nil, err
	}
	sign := func(message []byte) ([]byte, error) {
		signature, err := a.callSigner(signer, message)
		if err != nil {
			return nil, err
		}
		if public, ok := public.(*ecdsa.PublicKey); ok {
			return fixedWidth(signature, coordinateSize(public.Curve))
		}
		return signature, nil
	}
	verified := func(message []byte) ([]byte, error) {
		signature, err := sign(message)
		if err == nil && !a.verify(public, message, signature) {
			return nil, fmt.Errorf("the signer's public key doesn't verify its signature with %s; check that both belong to the same key, and that the signer supports the algorithm", a.name)
		}
		return signature, err
	}
	key := &Key{algorithm: a.name, only: len(fitting(kind)) == 1, jwk: jwk, thumbprint: Digest([]byte(jwk)), sign: verified}
	switch signer.(type) {
	case *rsa.PrivateKey, pssKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		// If these work once, they always work. With an elliptic curve,
		// verifying takes longer than signing.
		if _, err := verified(nil); err != nil {
			return nil, err
		}
		key.sign, key.local = sign, true
	}
	return key, nil
}

// NewSecretKey returns a key that signs with HMAC and a secret that the verifier
// knows too. An empty algorithm means HS256, or the first that is listed, as in NewKey.
//
// A secret shorter than the hash (32, 48 or 64 bytes) is an error, because RFC 7518,
// Section 3.2, forbids it. Padding wouldn't help: such a secret can be guessed from
// a single signature.
func NewSecretKey(secret, algorithm string, listed ...string) (*Key, error) {
	a, err := choose(secretKey, algorithm, listed)
	if err != nil {
		return nil, err
	}
	if size := a.hash.Size(); len(secret) < size {
		return nil, fmt.Errorf("%s needs a secret of at least %d bytes (RFC 7518, Section 3.2); ask the authorization server for a longer one", a.name, size)
	}
	return &Key{algorithm: a.name, sign: func(message []byte) ([]byte, error) {
		mac := hmac.New(a.hash.New, []byte(secret))
		mac.Write(message)
		return mac.Sum(nil), nil
	}}, nil
}

// Algorithm returns the alg of the header, such as RS256.
func (k *Key) Algorithm() string { return k.algorithm }

// IsOnlyAlgorithm reports whether the key can sign with no other algorithm, by any name.
func (k *Key) IsOnlyAlgorithm() bool { return k.only }

// JWK returns the public key as a JSON Web Key that has only the required members
// (RFC 7517; RFC 7518, Section 6; RFC 8037, Section 2). It is nil for a secret.
func (k *Key) JWK() json.RawMessage {
	if k.jwk == "" {
		return nil
	}
	return json.RawMessage(k.jwk)
}

// Thumbprint returns the SHA-256 thumbprint of JWK in base64url (RFC 7638). It is
// empty for a secret, because a hash would help to guess it.
func (k *Key) Thumbprint() string { return k.thumbprint }

// Sign returns the JWS of claims, encoded as JSON, in compact serialization (RFC
// 7515, Section 3.1). The header of the JWS is header, which may be nil, plus alg.
// The caller must not set alg, crit or b64.
func (k *Key) Sign(header map[string]any, claims any) (string, error) {
	complete := map[string]any{"alg": k.algorithm}
	for name, value := range header {
		switch name {
		case "alg", "crit", "b64":
			return "", fmt.Errorf("the caller must not set %s in the header", name)
		}
		complete[name] = value
	}
	protected, err := json.Marshal(complete)
	if err != nil {
		return "", fmt.Errorf("the header can't be written as JSON: %w", err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("the claims can't be written as JSON: %w", err)
	}
	return k.compact(protected, payload)
}

func (k *Key) compact(protected, payload []byte) (string, error) {
	message := encode(protected) + "." + encode(payload)
	signature, err := k.sign([]byte(message))
	if err != nil {
		return "", err
	}
	return message + "." + encode(signature), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Digest returns the SHA-256 of b in base64url, as in the ath and jkt of RFC 9449 and the
// x5t#S256 of RFC 7515, Section 4.1.8.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return encode(sum[:])
}

// IsLocal reports whether signing is a computation in this process, which ends by itself.
func (k *Key) IsLocal() bool { return k.local }

var errNoPublicKey = errors.New("the signer has no public key, or an invalid one")

// Thumbprint returns the SHA-256 thumbprint of the signer's public key, as that of a Key.
func Thumbprint(signer crypto.Signer) (string, error) {
	_, _, jwk, err := describe(signer)
	if err != nil {
		return "", err
	}
	return Digest([]byte(jwk)), nil
}

// describe returns signer's public key, its kind and its JWK. The members of jwk are
// in the order of RFC 7638, Section 3.3, without white space.
func describe(signer crypto.Signer) (public crypto.PublicKey, kind keyKind, jwk string, err error) {
	defer func() {
		if recover() != nil { // Perhaps signer is a nil pointer.
			err = errNoPublicKey
		}
	}()
	public = signer.Public()
	switch public := public.(type) {
	case nil:
		return nil, "", "", errNoPublicKey
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits {
			return nil, "", "", fmt.Errorf("the RSA key has %d bits; use at least %d", bits, minRSABits)
		}
		kind = rsaKey
		if restricted, ok := signer.(pssKey); ok {
			kind = restricted.kind()
		}
		jwk = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, encode(big.NewInt(int64(public.E)).Bytes()), encode(public.N.Bytes()))
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			kind = p256Key
		case elliptic.P384():
			kind = p384Key
		case elliptic.P521():
			kind = p521Key
		default:
			return nil, "", "", errors.New("the ECDSA key's curve must be P-256, P-384 or P-521")
		}
		point, err := public.Bytes() // In SEC 1: a 4, then both coordinates in full width.
		if err != nil {
			return nil, "", "", errNoPublicKey
		}
		size := coordinateSize(public.Curve)
		jwk = fmt.Sprintf(`{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, public.Params().Name, encode(point[1:1+size]), encode(point[1+size:]))
	case ed25519.PublicKey:
		if len(public) != ed25519.PublicKeySize {
			return nil, "", "", errNoPublicKey
		}
		kind = ed25519Key
		jwk = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, encode(public))
	default:
		return nil, "", "", fmt.Errorf("the signer's public key is a %T; use RSA, ECDSA or Ed25519", public)
	}
	return public, kind, jwk, nil
}

// coordinateSize returns the number of bytes in a coordinate. Each half of a
// signature has as many, because the order of these curves is as long as their field.
func coordinateSize(curve elliptic.Curve) int { return (curve.Params().BitSize + 7) / 8 }

// callSigner returns signer's signature of message in the form of crypto.Signer.
func (a algorithm) callSigner(signer crypto.Signer, message []byte) (signature []byte, err error) {
	defer func() {
		if v := recover(); v != nil { // Its text may be anything.
			err = fmt.Errorf("the signer panicked with a value of type %T", v)
		}
	}()
	var opts crypto.SignerOpts = a.hash
	if a.pss {
		// RFC 7518, Section 3.5: the salt is as long as the hash. crypto/tls asks
		// for it with the same constant, so that most signers know that.
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
	}
	signature, err = crypto.SignMessage(signer, rand.Reader, message, opts)
	if err != nil {
		return nil, fmt.Errorf("the signer failed: %w", err)
	}
	return signature, nil
}

// fixedWidth converts a signature in ASN.1 into that of RFC 7518, Section 3.4: r and
// s with size bytes each.
func fixedWidth(der []byte, size int) ([]byte, error) {
	var signature struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &signature)
	if err != nil || len(rest) > 0 {
		return nil, errors.New("the signer's signature isn't two numbers in ASN.1, which crypto.Signer requires for ECDSA")
	}
	r, s := signature.R, signature.S
	if r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*size || s.BitLen() > 8*size {
		return nil, errors.New("the signer's signature has a number that is out of range")
	}
	raw := make([]byte, 2*size)
	r.FillBytes(raw[:size])
	s.FillBytes(raw[size:])
	return raw, nil
}

// verify reports whether public verifies signature, which has the form of a JWS.
func (a algorithm) verify(public crypto.PublicKey, message, signature []byte) bool {
	digest := message
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if a.pss {
			return rsa.VerifyPSS(public, a.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(public, a.hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		half := len(signature) / 2
		return ecdsa.Verify(public, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	case ed25519.PublicKey:
		return ed25519.Verify(public, message, signature)
	}
	return false
}
