// Package jws signs JSON Web Signatures (RFC 7515), in compact serialization, with
// any crypto.Signer or a shared secret. It verifies none.
//
// Its errors have no prefix: the caller adds "oauth2: " and where the key came
// from. They quote nothing of a key, of a secret or of what is signed.
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
	"strings"
)

// minRSABits is what RFC 7518, Sections 3.3 and 3.5, demands.
const minRSABits = 2048

// A keyKind is a sort of key, in words for errors.
type keyKind string

const (
	rsaKey     keyKind = "an RSA key"
	p256Key    keyKind = "a P-256 key"
	p384Key    keyKind = "a P-384 key"
	p521Key    keyKind = "a P-521 key"
	ed25519Key keyKind = "an Ed25519 key"
	secretKey  keyKind = "a secret"
)

type algorithm struct {
	name string // in the header
	kind keyKind
	hash crypto.Hash // 0: the message is signed itself
	pss  bool
}

// algorithms are those of RFC 7518, Section 3.1, RFC 8037, Section 3.1, and RFC
// 9864, Section 2.2. The first for a kind of key is the default.
var algorithms = []algorithm{
	{"RS256", rsaKey, crypto.SHA256, false}, // What nearly every server takes.
	{"RS384", rsaKey, crypto.SHA384, false},
	{"RS512", rsaKey, crypto.SHA512, false},
	{"PS256", rsaKey, crypto.SHA256, true},
	{"PS384", rsaKey, crypto.SHA384, true},
	{"PS512", rsaKey, crypto.SHA512, true},
	{"ES256", p256Key, crypto.SHA256, false},
	{"ES384", p384Key, crypto.SHA384, false},
	{"ES512", p521Key, crypto.SHA512, false},
	{"EdDSA", ed25519Key, 0, false},
	{"Ed25519", ed25519Key, 0, false}, // The same by its newer name.
	{"HS256", secretKey, crypto.SHA256, false},
	{"HS384", secretKey, crypto.SHA384, false},
	{"HS512", secretKey, crypto.SHA512, false},
}

// choose returns the algorithm of that name, or the default if name is empty.
func choose(kind keyKind, name string) (algorithm, error) {
	shown := "the algorithm" // An unknown name may be anything, so it isn't quoted.
	var fitting []string
	for _, a := range algorithms {
		if a.kind == kind {
			if name == a.name || name == "" {
				return a, nil
			}
			fitting = append(fitting, a.name)
		}
		if name == a.name {
			shown = a.name
		}
	}
	return algorithm{}, fmt.Errorf("%s doesn't fit %s; use %s", shown, kind, strings.Join(fitting, ", "))
}

// A Key signs. It is safe for concurrent use if its signer is, as those of the
// standard library are.
//
// Private parts are only in the closure of sign, where fmt and encoding/json see
// nothing of them.
type Key struct {
	algorithm  string
	jwk        string // canonical, RFC 7638, Section 3; empty for a secret
	thumbprint string
	sign       func(message []byte) (signature []byte, err error)
}

// NewKey returns a key that signs with signer, which may do so in another process
// or machine. An empty algorithm means RS256 for RSA, ES256, ES384 or ES512 by the
// curve, and EdDSA for Ed25519.
//
// A key of the standard library is tried once, here. Every signature of another
// signer is verified before it is used.
func NewKey(signer crypto.Signer, algorithm string) (*Key, error) {
	if signer == nil {
		return nil, errors.New("there is no signer")
	}
	public, kind, jwk, err := describe(signer)
	if err != nil {
		return nil, err
	}
	a, err := choose(kind, algorithm)
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
			return nil, fmt.Errorf("the signer's signature isn't one of its public key in %s; check that both are of the same key, and that it supports the algorithm", a.name)
		}
		return signature, err
	}
	thumbprint := sha256.Sum256([]byte(jwk))
	key := &Key{algorithm: a.name, jwk: jwk, thumbprint: encode(thumbprint[:]), sign: verified}
	switch signer.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		// They can't go wrong later, and verifying takes longer than signing
		// with an elliptic curve does.
		if _, err := verified(nil); err != nil {
			return nil, err
		}
		key.sign = sign
	}
	return key, nil
}

// NewSecretKey returns a key that signs with HMAC and a secret that the verifier
// knows too. An empty algorithm means HS256. A secret shorter than the hash, 32, 48
// or 64 bytes, is an error: RFC 7518, Section 3.2, forbids it, and padding it would
// only hide that it can be guessed from one signature.
func NewSecretKey(secret, algorithm string) (*Key, error) {
	a, err := choose(secretKey, algorithm)
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

// Algorithm returns the name that goes into the header, like RS256.
func (k *Key) Algorithm() string { return k.algorithm }

// JWK returns the public key as a JSON Web Key with the required members only (RFC
// 7517; RFC 7518, Section 6; RFC 8037, Section 2), or nil if k is a secret.
func (k *Key) JWK() json.RawMessage {
	if k.jwk == "" {
		return nil
	}
	return json.RawMessage(k.jwk)
}

// Thumbprint returns the SHA-256 thumbprint of JWK, base64url-encoded (RFC 7638).
// It is empty if k is a secret, of which it would tell something.
func (k *Key) Thumbprint() string { return k.thumbprint }

// Sign returns a JWS in compact serialization (RFC 7515, Section 3.1) of claims in
// JSON. To header, which may be nil, it adds alg; alg, crit and b64 must not be
// there already.
func (k *Key) Sign(header map[string]any, claims any) (string, error) {
	complete := map[string]any{"alg": k.algorithm}
	for name, value := range header {
		switch name {
		case "alg", "crit", "b64":
			return "", fmt.Errorf("the header's %s isn't the caller's to set", name)
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

var errNoPublicKey = errors.New("the signer has no public key, or a broken one")

// describe returns what is to know about signer's public key. The members of jwk
// are in the order of RFC 7638, Section 3.3, without white space.
func describe(signer crypto.Signer) (public crypto.PublicKey, kind keyKind, jwk string, err error) {
	defer func() {
		if recover() != nil { // A nil pointer, perhaps.
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
			return nil, "", "", errors.New("the ECDSA key's curve is none of P-256, P-384 and P-521")
		}
		point, err := public.Bytes() // SEC 1: 4, and both coordinates in full width.
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

// coordinateSize returns how many bytes a coordinate has, and each half of a
// signature. The order of these curves is as long as their field.
func coordinateSize(curve elliptic.Curve) int { return (curve.Params().BitSize + 7) / 8 }

func (a algorithm) callSigner(signer crypto.Signer, message []byte) (signature []byte, err error) {
	defer func() {
		if v := recover(); v != nil { // Its text may be anything.
			err = fmt.Errorf("the signer panicked with a value of type %T", v)
		}
	}()
	var opts crypto.SignerOpts = a.hash
	if a.pss {
		// RFC 7518, Section 3.5: the salt is as long as the hash. Said in the way
		// of crypto/tls, which most signers were made for.
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
	}
	signature, err = crypto.SignMessage(signer, rand.Reader, message, opts)
	if err != nil {
		return nil, fmt.Errorf("the signer failed: %w", err)
	}
	return signature, nil
}

// fixedWidth makes the signature of RFC 7518, Section 3.4, of an ASN.1 one: r and s,
// size bytes each.
func fixedWidth(der []byte, size int) ([]byte, error) {
	var signature struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &signature)
	if err != nil || len(rest) > 0 {
		return nil, errors.New("the signer's signature isn't the ASN.1 of two numbers, as crypto.Signer wants it for ECDSA")
	}
	r, s := signature.R, signature.S
	if r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*size || s.BitLen() > 8*size {
		return nil, errors.New("the signer's signature has a number out of range")
	}
	raw := make([]byte, 2*size)
	r.FillBytes(raw[:size])
	s.FillBytes(raw[size:])
	return raw, nil
}

// verify reports whether signature, in the form of a JWS, is one of message.
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
