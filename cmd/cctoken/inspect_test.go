package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unsigned returns a JWT whose signature is a secret instead.
func unsigned(header, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(claims)) + "." + strings.ReplaceAll(canaryToken, ".", "")
}

func TestDescribe(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name, token, want string
	}{
		{"a JWT", unsigned(`{"typ":"at+jwt","alg":"RS256","kid":"k1"}`,
			`{"iss":"https://login.example","aud":["https://api.example","urn:b"],"sub":"reports","client_id":"reports","exp":1767326645,"iat":1767319445,"jti":"x","scope":"read write","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`), `
A JWT of 392 bytes. NOT VERIFIED: anybody could have written it.

header
  alg       "RS256"
  kid       "k1"
  typ       "at+jwt"

claims
  aud       ["https://api.example","urn:b"]
  client_id "reports"
  cnf       {"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
  exp       1767326645
  iat       1767319445
  iss       "https://login.example"
  jti       "x"
  scope     "read write"
  sub       "reports"

in words
  expiry    expires in 1h, at 2026-01-02 04:04:05 UTC
  issued    issued 1h ago, for 2h
  scopes    read, write
  audience  https://api.example, urn:b
  binding   to the DPoP key with the thumbprint 0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I (RFC 9449)
`},
		{"one with mistakes", unsigned(`{"alg":"none"}`, `{"exp":1767322000.5,"iat":1767330000,"nbf":1767400000,"scp":["a","b"],"cnf":{"x5t#S256":"abc"},"\u001b[2J":"\u202e\u001b"}`), `
A JWT of 209 bytes. NOT VERIFIED: anybody could have written it.

header
  alg       "none"

claims
  "\x1b[2J" "\u202e\u001b"
  cnf       {"x5t#S256":"abc"}
  exp       1767322000.5
  iat       1767330000
  nbf       1767400000
  scp       ["a","b"]

in words
  signature none: no API should accept this token
  expiry    EXPIRED 17m 25s ago, at 2026-01-02 02:46:40 UTC
  issued    issued 1h 55m in the future: the clocks differ, for 2h 13m
  begin     NOT VALID before 2026-01-03 00:26:40 UTC, in 21h 22m
  scopes    a, b
  audience  none: an API can't check that the token is for it
  binding   to the client certificate with the thumbprint abc (RFC 8705)
`},
		{"a bare one", unsigned(`{"alg":"ES256"}`, `{"exp":"soon","cnf":{"jwk":{}}}`), `
A JWT of 89 bytes. NOT VERIFIED: anybody could have written it.

header
  alg       "ES256"

claims
  cnf       {"jwk":{}}
  exp       "soon"

in words
  expiry    unknown: there is no exp
  scopes    none
  audience  none: an API can't check that the token is for it
  binding   by jwk
`},
		{"an encrypted one", unsigned(`{"alg":"dir","enc":"A256GCM"}`, ``) + ".a.b", `
An encrypted JWT of 70 bytes: only its API can read it.

header
  alg       "dir"
  enc       "A256GCM"
`},
		{"an opaque one", canaryToken, `
An opaque token of 26 bytes: only its server knows what it means.
`},
		{"one that looks like a JWT", "e30.e30.x", `
An opaque token of 9 bytes: only its server knows what it means.
`},
		{"claims that aren't an object", unsigned(`{"alg":"RS256"}`, `null`), `
An opaque token of 53 bytes: only its server knows what it means.
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			parseToken(tt.token).describe(&out, now)
			assert.Equal(t, strings.TrimPrefix(tt.want, "\n"), out.String())
		})
	}
}

// TestInspectInput checks each form of input.
func TestInspectInput(t *testing.T) {
	jwt := unsigned(`{"alg":"RS256"}`, `{"sub":"x"}`)
	for name, input := range map[string]string{
		"the token":          jwt,
		"a line":             "  " + jwt + "\r\n",
		"a header field":     "authorization: bearer " + jwt + "\n",
		"a scheme":           "DPoP " + jwt,
		"a token response":   `{"access_token":"` + jwt + `","token_type":"Bearer"}`,
		"a field, no scheme": "Authorization: " + jwt,
	} {
		t.Run(name, func(t *testing.T) {
			for _, args := range [][]string{{"inspect"}, {"inspect", "-"}, {"inspect", writeFile(t, "token", input)}} {
				r := cctoken(t, nil, input, args...)
				require.Zero(t, r.status, r.stderr)
				assert.Contains(t, r.stdout, `sub       "x"`)
			}
		})
	}
}

func TestInspectJSON(t *testing.T) {
	r := cctoken(t, nil, unsigned(`{"alg":"RS256"}`, `{"n":12345678901234567890}`), "inspect", "-json")
	require.Zero(t, r.status, r.stderr)
	assert.JSONEq(t, `{"format":"jwt","verified":false,"size":82,"header":{"alg":"RS256"},"claims":{"n":12345678901234567890}}`, r.stdout)
	assert.Contains(t, r.stdout, "12345678901234567890", "the number was rounded")

	r = cctoken(t, nil, canaryToken, "inspect", "-json")
	var got token
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &got))
	assert.Equal(t, token{Format: "opaque", Size: len(canaryToken)}, got)
}

func TestPeriod(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                              "0s",
		400 * time.Millisecond:         "0s",
		-90 * time.Second:              "1m 30s",
		time.Hour:                      "1h",
		time.Hour + time.Second:        "1h",
		25*time.Hour + 59*time.Minute:  "1d 1h",
		400*24*time.Hour + time.Minute: "400d",
	} {
		assert.Equal(t, want, period(d))
	}
}
