package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
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

// TestDescribe checks the output for the JWTs in testdata/inspect. Each file contains a
// header, claims, an empty line and the output.
func TestDescribe(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	check := func(t *testing.T, token, want string) {
		var out bytes.Buffer
		parseToken(token).describe(&out, now)
		assert.Equal(t, want, out.String())
	}
	files, err := filepath.Glob("testdata/inspect/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			jwt, want, _ := strings.Cut(string(text), "\n\n")
			header, claims, _ := strings.Cut(jwt, "\n")
			check(t, unsigned(header, claims), want)
		})
	}
	for name, tt := range map[string]struct{ token, want string }{
		"encrypted":       {unsigned(`{"alg":"dir","enc":"A256GCM"}`, ``) + ".a.b", "An encrypted JWT of 70 bytes: only its API can read it.\n\nheader\n  alg       \"dir\"\n  enc       \"A256GCM\"\n"},
		"opaque":          {canaryToken, "An opaque token of 26 bytes: only its server knows what it means.\n"},
		"almost a JWT":    {"e30.e30.x", "An opaque token of 9 bytes: only its server knows what it means.\n"},
		"claims are null": {unsigned(`{"alg":"RS256"}`, `null`), "An opaque token of 53 bytes: only its server knows what it means.\n"},
	} {
		t.Run(name, func(t *testing.T) { check(t, tt.token, tt.want) })
	}
}

// TestDescribeLines has the claims forge lines of the output.
func TestDescribeLines(t *testing.T) {
	for _, claims := range []string{
		`{"aud":"x\n  signature VERIFIED"}`, `{"aud":["x","y\r\n  signature VERIFIED"]}`, `{"scope":"x\n\rVERIFIED"}`,
		`{"cnf":{"jkt":"x\n  signature VERIFIED"}}`, `{"cnf":{"a\n  signature VERIFIED":1}}`, `{"cnf":{"x5t#S256":["\n  signature VERIFIED"]}}`,
		`{"a\n  signature VERIFIED":"\n  signature VERIFIED"}`,
	} {
		var out bytes.Buffer
		parseToken(unsigned(`{"alg":"RS256"}`, claims)).describe(&out, time.Now())
		assert.Regexp(t, `\n\nclaims\n.*\n\nin words\n`, out.String())
		assert.NotRegexp(t, `(?m)^ *(signature )?VERIFIED`, out.String(), claims)
	}
}

func TestInspectInput(t *testing.T) {
	jwt := unsigned(`{"alg":"RS256"}`, `{"sub":"x"}`)
	for name, input := range map[string]string{
		"the token":        jwt,
		"a line":           "  " + jwt + "\r\n",
		"a header field":   "authorization: bearer " + jwt + "\n",
		"a scheme":         "DPoP " + jwt,
		"a token response": `{"access_token":"` + jwt + `","token_type":"Bearer"}`,
	} {
		for _, args := range [][]string{{"inspect"}, {"inspect", "-"}, {"inspect", writeFile(t, "token", input)}} {
			assert.Contains(t, cctoken(t, nil, input, args...).stdout, `sub       "x"`, name)
		}
	}
}

func TestInspectJSON(t *testing.T) {
	r := cctoken(t, nil, unsigned(`{"alg":"RS256"}`, `{"n":12345678901234567890}`), "inspect", "-json")
	assert.JSONEq(t, `{"format":"jwt","verified":false,"size":82,"header":{"alg":"RS256"},"claims":{"n":12345678901234567890}}`, r.stdout)
	assert.Contains(t, r.stdout, "12345678901234567890", "the number was rounded")
	r = cctoken(t, nil, canaryToken, "inspect", "-json")
	assert.JSONEq(t, `{"format":"opaque","verified":false,"size":26}`, r.stdout)
}

func TestPeriod(t *testing.T) {
	for d, want := range map[time.Duration]string{
		400 * time.Millisecond:         "0s",
		-90 * time.Second:              "1m 30s",
		time.Hour + time.Second:        "1h",
		25*time.Hour + 59*time.Minute:  "1d 1h",
		400*24*time.Hour + time.Minute: "400d",
	} {
		assert.Equal(t, want, period(d))
	}
}
