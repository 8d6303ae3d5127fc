package clientcredentialstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"strings"
	"time"
)

// A jwt is a JSON Web Token in compact serialization (RFC 7515, Section 3.1). Its
// signature isn't verified yet.
type jwt struct {
	header    map[string]any
	signed    string
	signature []byte
}

// parseJWT decodes a JWT, and its payload into claims.
func parseJWT(text string, claims any) (*jwt, bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, false
	}
	header, headerErr := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	payload, payloadErr := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	signature, signatureErr := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	j := &jwt{signed: parts[0] + "." + parts[1], signature: signature}
	if headerErr != nil || payloadErr != nil || signatureErr != nil ||
		json.Unmarshal(header, &j.header) != nil || json.Unmarshal(payload, claims) != nil {
		return nil, false
	}
	return j, true
}

func (j *jwt) algorithm() string {
	name, _ := j.header["alg"].(string)
	return name
}

// hash returns the hash of an algorithm whose name ends with the size of its hash.
func (j *jwt) hash() (crypto.Hash, bool) {
	name := j.algorithm()
	if len(name) != 5 {
		return 0, false
	}
	hash, ok := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[name[2:]]
	return hash, ok
}

// isSignedBy reports whether key verifies the signature of j: RFC 7518, Section 3.1,
// and RFC 8037, Section 3.1.
func (j *jwt) isSignedBy(key crypto.PublicKey) bool {
	name := j.algorithm()
	if name == "EdDSA" || name == "Ed25519" {
		public, ok := key.(ed25519.PublicKey)
		return ok && ed25519.Verify(public, []byte(j.signed), j.signature)
	}
	hash, ok := j.hash()
	if !ok {
		return false
	}
	h := hash.New()
	h.Write([]byte(j.signed))
	digest := h.Sum(nil)
	switch public := key.(type) {
	case *rsa.PublicKey:
		switch name[:2] {
		case "RS":
			return rsa.VerifyPKCS1v15(public, hash, digest, j.signature) == nil
		case "PS":
			return rsa.VerifyPSS(public, hash, digest, j.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
	case *ecdsa.PublicKey:
		bits := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[name]
		size := (bits + 7) / 8
		return bits == public.Curve.Params().BitSize && len(j.signature) == 2*size &&
			ecdsa.Verify(public, digest, new(big.Int).SetBytes(j.signature[:size]), new(big.Int).SetBytes(j.signature[size:]))
	}
	return false
}

// used remembers ids that may be used only once, for as long as they could be used again.
type used struct {
	until   map[string]time.Time
	sweepAt int // the number of ids at which those in the past are removed
}

// add reports whether id is new, and remembers it.
func (u *used) add(id string, now, until time.Time) bool {
	if _, ok := u.until[id]; ok {
		return false
	}
	if u.until == nil {
		u.until = make(map[string]time.Time)
	}
	if len(u.until) >= max(u.sweepAt, kept) {
		maps.DeleteFunc(u.until, func(_ string, until time.Time) bool { return now.After(until) })
		u.sweepAt = 2 * len(u.until)
	}
	u.until[id] = until
	return true
}
