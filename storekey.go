package clientcredentials

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// A tokenIdentity is what makes a token another one: who may share it asks for the
// same, in the same name and the same way, and has what it is bound to. The secret
// is no part of it, so that a token outlives the rotation of that.
type tokenIdentity struct {
	tokenURL, clientID, method string
	form                       url.Values // scope and other parameters
	binding                    string     // thumbprints of certificate and key; empty: none
}

// storeKey returns the key under which r's token is kept in a store, for a client that
// presents that certificate; nil: none. What the token will be bound to is part of it.
func (r *tokenRequest) storeKey(certificate *tls.Certificate) (string, error) {
	if err := r.prepareProofs(); err != nil {
		return "", err
	}
	identity := tokenIdentity{tokenURL: r.url, clientID: r.clientID, method: "client_secret", form: r.form}
	if r.clientAuth != nil {
		identity.method = r.clientAuth.Method()
	}
	if certificate != nil {
		identity.binding = "x5t#S256=" + certificateThumbprint(certificate)
	}
	if r.proofKey != nil {
		identity.binding += " jkt=" + r.proofKey.Thumbprint()
	}
	return identity.storeKey(), nil
}

// storeKey returns the key of the token in a store that replicas share: the SHA-256
// of an encoding in which no two identities are the same. What is in a store tells
// nothing of it.
func (i tokenIdentity) storeKey() string {
	sum := sha256.Sum256(i.encode())
	return hex.EncodeToString(sum[:])
}

// encode writes each text with its length before it, and each list with its own, so
// that no text can pass for two, or for a part of the next. The order of parameters,
// and of scopes, has no meaning (RFC 6749, Section 3.3); that of a parameter's
// values may have.
func (i tokenIdentity) encode() []byte {
	var b []byte
	number := func(n int) { b = binary.BigEndian.AppendUint64(b, uint64(n)) } //nolint:gosec // A length is no less than 0.
	text := func(s string) {
		number(len(s))
		b = append(b, s...)
	}
	for _, s := range []string{i.tokenURL, i.clientID, i.method, i.binding} {
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
