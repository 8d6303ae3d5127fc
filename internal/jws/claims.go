package jws

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

// Claims are those claims of a JWT (RFC 7519, Section 4.1) that say whose it is, which one it
// is, and when it begins and ends. Nobody has verified them.
type Claims struct {
	Issuer, Subject string
	ID              string    // jti; empty: it has none
	Expiry          time.Time // zero: it doesn't say
	Issued          time.Time // iat, or else nbf; zero: it doesn't say
}

// Characters are all that a JWT in compact serialization may contain, RFC 7515, Sections 2
// and 3.1.
const Characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

// UnverifiedPayload returns the JSON with the claims of a JWT without looking at its signature.
func UnverifiedPayload(token string) ([]byte, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("it is not a JWT, which has three parts with dots between them")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || strings.Trim(token, Characters) != "" {
		return nil, errors.New("it is not a JWT, whose parts are base64url")
	}
	return payload, nil
}

// UnverifiedIdentity returns a digest of what a JWT says besides when: of all claims but exp,
// iat, nbf and jti, which each JWT has anew. JWTs with the same digest ask for the same, in
// the name of the same subject. The signature and the header, which change with the key, don't
// matter. The order of claims and the white space in their values do.
func UnverifiedIdentity(token string) (string, error) {
	payload, err := UnverifiedPayload(token)
	if err != nil {
		return "", err
	}
	if !strictjson.IsObject(payload) {
		return "", errors.New("it is not a JWT: its claims aren't a JSON object")
	}
	var b []byte
	for name, value := range strictjson.Members(payload) { // Also those that appear twice.
		switch name {
		case "exp", "iat", "nbf", "jti":
			continue
		}
		b = AppendText(AppendText(b, name), string(value))
	}
	return Digest(b), nil
}

// AppendText appends a text with its length, so that no two lists of texts look the same.
func AppendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// UnverifiedClaims returns the claims of a JWT without looking at its signature: for a client
// that passes the JWT on, and must know how long it can. A text that isn't a JWT is an error,
// and so is a claim of the wrong kind, except for iat and nbf, which are ignored then. Errors
// quote nothing of it.
func UnverifiedClaims(token string) (Claims, error) {
	payload, err := UnverifiedPayload(token)
	if err != nil {
		return Claims{}, err
	}
	var claims struct {
		Issuer  string   `json:"iss"`
		Subject string   `json:"sub"`
		ID      string   `json:"jti"`
		Expiry  *float64 `json:"exp"`

		IssuedAt  json.RawMessage `json:"iat"`
		NotBefore json.RawMessage `json:"nbf"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return Claims{}, errors.New("it is not a JWT with iss, sub, jti and exp as RFC 7519 defines them")
	}
	c := Claims{Issuer: claims.Issuer, Subject: claims.Subject, ID: claims.ID}
	if claims.Expiry != nil {
		c.Expiry = date(*claims.Expiry)
	}
	for _, claim := range []json.RawMessage{claims.IssuedAt, claims.NotBefore} {
		var seconds *float64
		if json.Unmarshal(claim, &seconds) == nil && seconds != nil {
			c.Issued = date(*seconds)
			break
		}
	}
	return c, nil
}

// date returns the time of a NumericDate (RFC 7519, Section 2). A fraction of a second is
// dropped. What lies beyond the year 9999 is as good as that.
func date(seconds float64) time.Time {
	return time.Unix(int64(max(0, math.Min(seconds, 253402300799))), 0)
}
