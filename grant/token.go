package grant

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// maxName is how much of an issuer or a subject an error shows, in bytes.
const maxName = 200

// A token is what can be known of an assertion, or of a token to exchange, without verifying
// it.
type token struct {
	name   string     // what errors call it
	claims jws.Claims // if it is a JWT
	opaque error      // why it isn't; nil: it is
}

// read returns what can be known of a token. It is an error if the token can't be meant, or
// has expired. kind is what people call such a token, and field is the one of the Grant that
// it comes from.
func read(kind, field, text string) (t token, err error) {
	switch {
	case text == "":
		return t, fmt.Errorf("the %s is empty; check where %s gets it from", kind, field)
	case strings.ContainsFunc(text, unicode.IsControl):
		return t, fmt.Errorf("the %s contains a control character; check where %s gets it from", kind, field)
	}
	t.name = "the " + kind
	claims, err := jws.UnverifiedClaims(text)
	if err != nil {
		t.opaque = fmt.Errorf("the %s can't be used: %w; check where %s gets it from", kind, err, field)
		return t, nil
	}
	t.claims = claims
	if claims.Subject != "" {
		t.name += " of subject " + redact.Quote(claims.Subject, maxName)
	}
	if claims.Issuer != "" {
		t.name += " from issuer " + redact.Quote(claims.Issuer, maxName)
	}
	if late := time.Since(claims.Expiry); !claims.Expiry.IsZero() && late >= 0 {
		return t, fmt.Errorf("%s expired %v ago; check where %s gets it from, and the clock of this machine", t.name, late.Round(time.Second), field)
	}
	return t, nil
}

// isEncrypted reports whether a text looks like an encrypted JWT, which has five parts: RFC
// 7516, Section 3.1. Only the server can read it.
func isEncrypted(text string) bool {
	return strings.Count(text, ".") == 4 && strings.Trim(text, jws.Characters) == ""
}
