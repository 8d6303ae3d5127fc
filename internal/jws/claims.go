package jws

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"
)

// Claims are those claims of a JWT (RFC 7519, Section 4.1) that say whose it is and when it
// ends. Nobody has verified them.
type Claims struct {
	Issuer, Subject string
	Expiry          time.Time // zero: it doesn't say
}

// UnverifiedClaims returns the claims of a JWT without looking at its signature: for a client
// that passes the JWT on, and must know how long it can. A claim of the wrong kind is an
// error, and so is a text that isn't a JWT. Errors quote nothing of it.
func UnverifiedClaims(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Claims{}, errors.New("it is not a JWT, which has three parts with dots between them")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return Claims{}, errors.New("it is not a JWT: its second part is not base64url")
	}
	var claims struct {
		Issuer  string   `json:"iss"`
		Subject string   `json:"sub"`
		Expiry  *float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return Claims{}, errors.New("it is not a JWT with iss, sub and exp as RFC 7519 defines them")
	}
	c := Claims{Issuer: claims.Issuer, Subject: claims.Subject}
	if claims.Expiry != nil {
		// A fraction of a second is dropped. What lies beyond the year 9999 is as good as that.
		c.Expiry = time.Unix(int64(max(0, math.Min(*claims.Expiry, 253402300799))), 0)
	}
	return c, nil
}
