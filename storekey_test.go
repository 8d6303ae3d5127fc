package clientcredentials

import (
	"crypto"
	"crypto/tls"
	"encoding/binary"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestS18_StoreKey(t *testing.T) {
	base := func() tokenIdentity {
		return tokenIdentity{
			tokenURL: "https://auth.example/token", clientID: "client", method: "client_secret_basic",
			form: url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "resource": {"https://a.example", "https://b.example"}},
		}
	}
	same := base()
	same.form["scope"] = []string{"b a"}
	require.Equal(t, base().hash(), same.hash(), "the order of scopes has no meaning")
	require.Len(t, base().hash(), 64)

	seen := map[string]string{base().hash(): "base"}
	for name, change := range map[string]func(i *tokenIdentity){
		"token URL":         func(i *tokenIdentity) { i.tokenURL += "2" },
		"client id":         func(i *tokenIdentity) { i.clientID += "2" },
		"method":            func(i *tokenIdentity) { i.method = "private_key_jwt" },
		"tenant":            func(i *tokenIdentity) { i.tenant = "a" },
		"binding":           func(i *tokenIdentity) { i.binding = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" },
		"grant type":        func(i *tokenIdentity) { i.grantType = "urn:x" },
		"subject":           func(i *tokenIdentity) { i.grantType, i.subject = "urn:x", "a" },
		"another subject":   func(i *tokenIdentity) { i.grantType, i.subject = "urn:x", "b" },
		"moved":             func(i *tokenIdentity) { i.clientID, i.method = i.clientID+"c", i.method[1:] },
		"more scopes":       func(i *tokenIdentity) { i.form["scope"] = []string{"a b c"} },
		"empty scope":       func(i *tokenIdentity) { i.form["scope"] = []string{""} },
		"order of resource": func(i *tokenIdentity) { slices.Reverse(i.form["resource"]) },
	} {
		changed := base()
		change(&changed)
		key := changed.hash()
		require.NotContains(t, seen, key, "%s and %s", name, seen[key])
		seen[key] = name
	}
}

// What a token will be bound to is part of its key. The secret is not.
func TestS18_StoreKeyOfARequest(t *testing.T) {
	certificate := func(text string) *tls.Certificate { return &tls.Certificate{Certificate: [][]byte{[]byte(text)}} }
	key := func(c *Config, certificate *tls.Certificate) string {
		c.ClientID, c.TokenURL = "client", "https://auth.example/token"
		request, err := newTokenRequest(t.Context(), c, "", nil)
		require.NoError(t, err)
		require.NoError(t, request.bind(t.Context()))
		require.NoError(t, request.present(certificate))
		return request.storeKey()
	}
	seen := map[string]bool{}
	for _, certificate := range []*tls.Certificate{nil, certificate("a"), certificate("b")} {
		for _, signer := range []crypto.Signer{nil, canaryKey} {
			for _, auth := range []ClientAuth{nil, authFunc(nil)} {
				c := &Config{DPoP: signer, ClientAuth: auth, ClientSecret: "secret"}
				first := key(c, certificate)
				require.False(t, seen[first])
				seen[first] = true
				c.ClientSecret, c.AuthStyle = "rotated", oauth2.AuthStyleInParams
				require.Equal(t, first, key(c, certificate))
			}
		}
	}
}

// An identity can be read back from its encoding, so no two identities have the same
// encoding.
func FuzzStoreKey(f *testing.F) {
	f.Add("https://auth.example/token", "client", "client_secret_basic", "", "", "scope=a+b&resource=x&resource=y", "", "")
	f.Add("", "", "", "", "", "", "", "")
	f.Add("a", "bc", "d", "t", "e", "=&=&a=&a=b", "urn:x", "s")
	f.Add("ab", "c", "d", "t", "e", "scope=b+a++a&scope=", "u", "rn:xs")
	f.Add("\x00\x00\x00\x00\x00\x00\x00\x01", "\x00", "", "\x00", "\x00\x00", "%00=%00", "\x00", "\x00")
	f.Fuzz(func(t *testing.T, tokenURL, clientID, method, tenant, binding, query, grantType, subject string) {
		form, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		if grantType == "" {
			subject = "" // There is no Grant.
		}
		identity := tokenIdentity{tokenURL, clientID, method, tenant, form, binding, grantType, subject}
		encoded := identity.encode()
		number := func() int {
			n := binary.BigEndian.Uint64(encoded)
			encoded = encoded[8:]
			return int(n)
		}
		text := func() string {
			n := number()
			s := string(encoded[:n])
			encoded = encoded[n:]
			return s
		}
		back := tokenIdentity{tokenURL: text(), clientID: text(), method: text(), tenant: text(), binding: text(), form: make(url.Values)}
		for range number() {
			name := text()
			back.form[name] = make([]string, number())
			for i := range back.form[name] {
				back.form[name][i] = text()
			}
		}
		if len(encoded) > 0 {
			back.grantType, back.subject = text(), text()
		}
		require.Empty(t, encoded)
		for i, scopes := range form["scope"] {
			list := strings.Split(scopes, " ")
			slices.Sort(list)
			form["scope"][i] = strings.Join(list, " ")
		}
		require.Equal(t, identity, back)
	})
}
