package clientcredentials

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// A tokenIdentity is what distinguishes one token from another. Replicas share a token if
// they ask for the same thing, as the same client, by the same method, and have what the
// token is bound to. The secret isn't part of it, so that a token outlives the secret's
// rotation.
type tokenIdentity struct {
	tokenURL, clientID, method, tenant string
	form                               url.Values // scope and other parameters
	binding                            string     // thumbprints of certificate and key; empty: none
	grantType, subject                 string     // of the Grant; empty: client credentials
}

// storeKey returns the key under which r's token is kept in a store. What the token will be
// bound to, and whose it will be, is part of the key, so bind, identifyClient and
// identifySubject must have been called.
func (r *tokenRequest) storeKey() string {
	identity := tokenIdentity{tokenURL: r.conf.TokenURL, clientID: r.clientID, method: "client_secret", form: r.form(), grantType: r.granting.grantType, subject: r.granting.subject}
	if r.conf.Store != nil {
		identity.tenant = r.conf.Store.tenant
	}
	if r.conf.ClientAuth != nil {
		identity.method = r.conf.ClientAuth.Method()
	}
	if r.bound.certificate != nil {
		identity.binding = "x5t#S256=" + certificateThumbprint(r.bound.certificate)
	}
	if r.bound.key != nil {
		identity.binding += " jkt=" + r.bound.key.Thumbprint()
	}
	return identity.hash()
}

// hash returns the SHA-256 of an encoding in which no two identities are the same. It
// reveals nothing about the identity.
func (i tokenIdentity) hash() string {
	sum := sha256.Sum256(i.encode())
	return hex.EncodeToString(sum[:])
}

// encode writes the length before each text and each list, so that no text can be mistaken
// for two texts, or for a part of the next one. The order of parameters and of scopes has
// no meaning (RFC 6749, Section 3.3), but the order of a parameter's values may have one.
func (i tokenIdentity) encode() []byte {
	var b []byte
	number := func(n int) { b = binary.BigEndian.AppendUint64(b, uint64(n)) } //nolint:gosec // A length is no less than 0.
	text := func(s string) {
		number(len(s))
		b = append(b, s...)
	}
	for _, s := range []string{i.tokenURL, i.clientID, i.method, i.tenant, i.binding} {
		text(s)
	}
	number(len(i.form))
	for _, name := range slices.Sorted(maps.Keys(i.form)) {
		text(name)
		values := i.form[name]
		if name == "scope" {
			values = sortedScopes(values)
		}
		number(len(values))
		for _, value := range values {
			text(value)
		}
	}
	if i.grantType != "" { // Otherwise the encoding ends with the form.
		text(i.grantType)
		text(i.subject)
	}
	return b
}

// sortedScopes returns each value with its scopes in alphabetical order.
func sortedScopes(values []string) []string {
	sorted := make([]string, len(values))
	for i, value := range values {
		scopes := strings.Split(value, " ")
		slices.Sort(scopes)
		sorted[i] = strings.Join(scopes, " ")
	}
	return sorted
}
