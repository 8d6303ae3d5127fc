// Package assertion makes the JWTs that a client signs to say who it is, or in whose name it
// asks: RFC 7523, Section 3. What a program adds to them can't replace by accident what the
// library sets.
package assertion

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

const (
	// defaultLifetime is short, because an assertion is used at once. Some servers accept
	// nothing longer.
	defaultLifetime = time.Minute

	// maxBackdating is more than the clocks of machines with NTP differ.
	maxBackdating = 10 * time.Second

	// maxName bounds what an error quotes of a name that a program gave, in bytes.
	maxName = 50
)

// Only the library sets these claims and these parameters of the header, unless the program
// lists a claim in Replace.
var (
	OwnClaims     = []string{"iss", "sub", "aud", "exp", "iat", "jti"}
	OwnParameters = []string{"alg", "typ", "kid", "x5c", "x5t", "x5t#S256", "crit", "b64"}
)

// A Content is what an assertion says.
type Content struct {
	Owner string // what errors call the type whose fields these are, such as "the ClientAuth"

	Issuer, Audience string
	Subject          string        // empty: there is no sub
	Type             string        // typ in the header; empty: "JWT"
	Lifetime         time.Duration // from iat to exp; zero: a minute

	// What the program adds, and which claims of the library's it may replace.
	Header, Claims map[string]any
	Replace        []string
}

// Sign returns a new assertion, signed with key. The header has the parameters that depend on
// the key, and Sign adds to it.
func (c *Content) Sign(key *jws.Key, header map[string]any) (string, error) {
	lifetime := cmp.Or(c.Lifetime, defaultLifetime)
	if lifetime < time.Second {
		return "", errors.New("the Lifetime is less than a second; set it to zero for a minute")
	}
	header["typ"] = cmp.Or(c.Type, "JWT")
	if err := c.add(header, c.Header, "Header", OwnParameters, nil); err != nil {
		return "", err
	}
	for _, name := range c.Replace {
		if !slices.Contains(OwnClaims, name) {
			return "", fmt.Errorf("the Replace of %s lists %s; it may list only %s", c.Owner, redact.Quote(name, maxName), strings.Join(OwnClaims, ", "))
		}
	}
	issued := time.Now().Add(-backdating(lifetime))
	claims := map[string]any{
		"iss": c.Issuer,
		"aud": c.Audience,    // Only one, so that no other server accepts it.
		"iat": issued.Unix(), // Rounded down, so that it isn't in the future.
		"exp": issued.Add(lifetime).Unix(),
		"jti": rand.Text(),
	}
	if c.Subject != "" {
		claims["sub"] = c.Subject
	}
	if err := c.add(claims, c.Claims, "Claims", OwnClaims, c.Replace); err != nil {
		return "", err
	}
	return key.Sign(header, claims)
}

// add adds members, which a program put into the field with that name, to a header or to
// claims. It encodes their values at once, so that nothing changes them later. Errors contain
// no value: the text of an error of encoding/json may contain one.
func (c *Content) add(to, members map[string]any, field string, own, replace []string) error {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		// Servers written in Go may not distinguish upper and lower case.
		same := func(other string) bool { return strings.EqualFold(name, other) }
		switch {
		case !slices.ContainsFunc(own, same) || slices.Contains(replace, name):
		case field == "Header":
			return fmt.Errorf("the Header of %s contains %s, which it can't set; remove it, and use the field for it if there is one", c.Owner, redact.Quote(name, maxName))
		default:
			return fmt.Errorf("the Claims of %s contain %s, which the library sets; remove it, or list it in Replace if the server wants another value", c.Owner, redact.Quote(name, maxName))
		}
		value, err := json.Marshal(members[name])
		// For bytes that aren't UTF-8, encoding/json writes \ufffd, and for a backslash \\.
		unescaped := bytes.ReplaceAll(value, []byte(`\\`), nil)
		if err != nil || !utf8.ValidString(name) || bytes.Contains(unescaped, []byte(`\ufffd`)) {
			return fmt.Errorf("%s in the %s of %s can't be written as JSON; check its value, which is of type %T", redact.Quote(name, maxName), field, c.Owner, members[name])
		}
		to[name] = json.RawMessage(value)
	}
	return nil
}

// backdating returns how far before now the iat of an assertion is. It is a part of the
// lifetime and not in addition to it: then exp-iat is never more than a server allows, and
// an assertion is never stale when it is made.
func backdating(lifetime time.Duration) time.Duration {
	return min(maxBackdating, lifetime/6).Truncate(time.Second)
}
