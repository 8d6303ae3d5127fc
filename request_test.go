package clientcredentials

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// requireFault checks that err is a *ResponseError that says so much and no more.
func requireFault(t *testing.T, err error, a reply, text string) {
	t.Helper()
	var fault *ResponseError
	require.ErrorAs(t, err, &fault)
	require.IsType(t, fault, err, "bare")
	status, mediaType := a.status, a.mediaType
	if status == 0 {
		status = http.StatusOK
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	shown := mediaType
	switch mediaType {
	case "":
		mediaType, shown = jsonType, jsonType
	case "none":
		mediaType, shown = "", "no media type"
	}
	require.Equal(t, status, fault.StatusCode)
	require.Equal(t, mediaType, fault.MediaType)
	require.Equal(t, len(a.body), fault.Size)
	require.EqualError(t, err, fmt.Sprintf("%s (status %d, %s, %d bytes)", text, status, shown, len(a.body)))
}

// spellings returns the answers in which expires_in is that text: as a number in
// JSON if it can be one, as a string in JSON, and in a form.
func spellings(text string) map[string]reply {
	quoted, _ := json.Marshal(text)
	answers := map[string]reply{
		"JSON string": {body: fmt.Sprintf(`{"access_token":"a","expires_in":%s}`, quoted)},
		"form":        {mediaType: formType, body: "access_token=a&expires_in=" + url.QueryEscape(text)},
	}
	if json.Valid([]byte(text)) {
		answers["JSON"] = reply{body: fmt.Sprintf(`{"access_token":"a","expires_in":%s}`, text)}
	}
	return answers
}

func checkExpiresIn(t *testing.T, text string, want int64) {
	for spelling, a := range spellings(text) {
		t.Run(fmt.Sprintf("%q as %s", text, spelling), func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				synctest.Test(t, func(t *testing.T) {
					token, err := tokenOf(t, a, strict)
					require.NoError(t, err)
					require.Equal(t, want, token.ExpiresIn)
					if want == 0 {
						require.Zero(t, token.Expiry)
						require.True(t, token.Valid())
						return
					}
					require.Equal(t, time.Duration(want)*time.Second, time.Until(token.Expiry))
				})
			})
		})
	}
}

func TestP1_ExpiresIn(t *testing.T) {
	for text, want := range map[string]int64{
		"3600":     3600,
		"3600.0":   3600,
		"3600.5":   3600,
		"59.999":   59,
		"1e3":      1000,
		"1E3":      1000,
		"1.5e+1":   15,
		"36000e-1": 3600,
		"0.5":      1, // Zero would mean that the token doesn't expire.
		"1e-300":   1,
		"1":        1,
		"":         0,
		"-1":       -1,
		"-0.5":     -1,
	} {
		checkExpiresIn(t, text, want)
	}
}

// What is more than zero stays so, also where a float64 cannot show it.
func TestP1_ExpiresInBelowFloat64(t *testing.T) {
	for _, text := range []string{"1e-400", "0.1e-9999"} {
		checkExpiresIn(t, text, 1)
	}
	checkExpiresIn(t, "-1e-400", -1)
}

func TestP1_ExpiresInNotANumber(t *testing.T) {
	for _, text := range []string{"true", "[3600]", `{"cAnAry":3600}`, `[]`} {
		a := reply{body: `{"access_token":"a","expires_in":` + text + `}`}
		modes(t, func(t *testing.T, strict bool) {
			_, err := tokenOf(t, a, strict)
			requireFault(t, err, a, "oauth2: cannot parse json: expires_in is not a number")
		})
	}
}

func TestP1b_NeverExpires(t *testing.T) {
	for _, text := range []string{"0", "-0", "0.0", "0e9", ""} {
		checkExpiresIn(t, text, 0)
	}
	for name, a := range map[string]reply{
		"null":           {body: `{"access_token":"a","expires_in":null}`},
		"absent":         {body: `{"access_token":"a"}`},
		"absent in form": {mediaType: formType, body: `access_token=a`},
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				token, err := tokenOf(t, a, strict)
				require.NoError(t, err)
				require.Zero(t, token.ExpiresIn)
				require.Zero(t, token.Expiry)
			})
		})
	}
}

func TestP1c_Floor(t *testing.T) {
	sent := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, expiresIn := range []int64{-math.MaxInt32, -3600, -1, 1, 2, 3, 10, 11, 100, 3600, math.MaxInt32} {
		for _, took := range []time.Duration{0, 300 * time.Millisecond, 9 * time.Second} {
			for _, refreshIn := range []int64{0, 1, 5, 1800, -7, math.MaxInt32} {
				for _, early := range []time.Duration{0, time.Nanosecond, time.Minute, forever} {
					for _, draw := range []float64{0, 0.5, math.Nextafter(1, 0)} {
						response := &tokenResponse{
							Response: &tokenresponse.Response{AccessToken: "a", ExpiresIn: expiresIn, RefreshIn: refreshIn},
							sent:     sent,
							floor:    took + minReuse,
						}
						c := newCachedToken(response, early, draw)
						about := fmt.Sprintf("expires_in %d, refresh_in %d, received after %v, EarlyRefresh %v, draw %v: %v %v %v",
							expiresIn, refreshIn, took, early, draw, c.soft, c.hard, c.dead)
						floor := took + time.Second
						require.GreaterOrEqual(t, c.soft, floor, about)
						require.GreaterOrEqual(t, c.hard, c.soft, about)
						require.GreaterOrEqual(t, c.dead, c.hard, about)
						life := time.Duration(expiresIn) * time.Second
						require.Equal(t, max(life, floor), c.dead, about)
						require.GreaterOrEqual(t, c.soft, life/2, about)

						// Where it counts: a token is used for a second at least.
						last := sent.Add(response.floor - 1)
						require.Equal(t, Fresh, c.state(last), about)
						require.False(t, c.awaited(last, 0), about)
						require.False(t, c.usable(sent.Add(c.dead)), about)
					}
				}
			}
		}
	}
}

func TestP1d_Clamp(t *testing.T) {
	for text, want := range map[string]int64{
		"2147483647":             math.MaxInt32,
		"2147483648":             math.MaxInt32,
		"99999999999":            math.MaxInt32,
		"9223372036854775807":    math.MaxInt32,
		"9223372036854775808":    math.MaxInt32,
		"1e300":                  math.MaxInt32,
		"1e999":                  math.MaxInt32, // beyond float64
		strings.Repeat("9", 999): math.MaxInt32,
		"-2147483647":            -math.MaxInt32,
		"-2147483648":            -math.MaxInt32,
		"-2147483649":            -math.MaxInt32,
		"-9223372036854775808":   -math.MaxInt32,
		"-1e300":                 -math.MaxInt32,
		"-1e999":                 -math.MaxInt32,
	} {
		checkExpiresIn(t, text, want)
	}
}

func TestP2_FormExpiresIn(t *testing.T) {
	checkExpiresIn(t, "3600.5", 3600)
	for _, text := range []string{
		"abc", "3600s", "0x10", "1_000", "NaN", "Infinity", "inf", " 3600", "3600 ", "3,600", "\u0661", "1e", "--1", "+", ".", "cAnAry",
	} {
		for spelling, a := range spellings(text) {
			t.Run(fmt.Sprintf("%q as %s", text, spelling), func(t *testing.T) {
				if spelling == "JSON" {
					t.Skip("the space around a number in JSON is not part of it")
				}
				prefix := "oauth2: cannot parse json"
				if spelling == "form" {
					prefix = "oauth2: cannot parse response"
				}
				modes(t, func(t *testing.T, strict bool) {
					_, err := tokenOf(t, a, strict)
					requireFault(t, err, a, prefix+": expires_in is not a number")
				})
			})
		}
	}
}

// RFC 6749, Section 5.1: the client must ignore members that it doesn't know.
func TestUnknownMembersAreIgnored(t *testing.T) {
	for _, value := range []string{`1e999`, `-1e999`, `{"a":[1e999]}`, `"\ud800"`, `[[]]`, `1,"x":2`, `true`} {
		t.Run(value, func(t *testing.T) {
			token, err := tokenOf(t, reply{body: `{"access_token":"a","x":` + value + `,"y":"kept"}`}, true)
			require.NoError(t, err)
			require.Equal(t, "a", token.AccessToken)
			require.Equal(t, "kept", token.Extra("y"))
		})
	}
}

func TestP3a_ExactNames(t *testing.T) {
	const parseError = "oauth2: cannot parse json: "
	const missing = "oauth2: server response missing access_token"
	for _, test := range []struct {
		name       string
		body       string
		want       string // by default: the token, or the error
		wantStrict string
	}{
		{"exact", `{"access_token":"a"}`, "a", "a"},
		{"escaped", `{"access\u005ftoken":"a"}`, "a", "a"},
		{"twice", `{"access_token":"a","access_token":"b"}`, parseError + "access_token appears more than once", ""},
		{"twice the same", `{"access_token":"a","access_token":"a"}`, parseError + "access_token appears more than once", ""},
		{"twice, once escaped", `{"access_token":"a","\u0061ccess_token":"b"}`, parseError + "access_token appears more than once", ""},
		{"twice, once null", `{"access_token":"a","access_token":null}`, parseError + "access_token appears more than once", ""},
		{"token_type twice", `{"access_token":"a","token_type":"Bearer","token_type":"Bearer"}`, parseError + "token_type appears more than once", ""},
		{"expires_in twice", `{"access_token":"a","expires_in":1,"expires_in":2}`, parseError + "expires_in appears more than once", ""},
		{"refresh_token twice", `{"access_token":"a","refresh_token":"1","refresh_token":"2"}`, parseError + "refresh_token appears more than once", ""},
		{"refresh_in twice", `{"access_token":"a","refresh_in":1,"refresh_in":2}`, parseError + "refresh_in appears more than once", ""},
		{"error twice", `{"access_token":"a","error":"","error":""}`, parseError + "error appears more than once", ""},
		{"unknown twice", `{"access_token":"a","scope":"1","scope":"2"}`, "a", "a"},
		{"inside another member", `{"access_token":"a","x":{"access_token":"b"}}`, "a", "a"},

		{"long s after", `{"access_token":"a","acce\u017f\u017f_token":"b"}`, "a", "a"},
		{"long s before", `{"acceſſ_token":"b","access_token":"a"}`, "a", "a"},
		{"long s alone", `{"acceſſ_token":"b"}`, missing, missing},
		{"Kelvin sign after", `{"access_token":"a","access_to` + "\u212a" + `en":"b"}`, "a", "a"},
		{"Kelvin sign alone", `{"access_to\u212aen":"b"}`, missing, missing},

		{"other case alone", `{"Access_Token":"a"}`, "a", parseError + "access_token is written in other letter case"},
		{"capitals alone", `{"ACCESS_TOKEN":"a"}`, "a", parseError + "access_token is written in other letter case"},
		{"other case after", `{"access_token":"a","Access_Token":"b"}`, "a", "a"},
		{"other case before", `{"Access_Token":"b","access_token":"a"}`, "a", "a"},
		{"other case and null", `{"Access_Token":"b","access_token":null}`, missing, missing},
		{"two other cases", `{"Access_Token":"a","ACCESS_TOKEN":"b"}`, parseError + "access_token appears more than once", parseError + "access_token is written in other letter case"},
		{"other case twice", `{"Access_Token":"a","Access_Token":"a"}`, parseError + "access_token appears more than once", parseError + "access_token is written in other letter case"},
		{"token_type in other case", `{"access_token":"a","Token_Type":"DPoP"}`, parseError + "token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config.DPoP", parseError + "token_type is written in other letter case"},
		{"bad value in other case", `{"access_token":"a","Expires_In":"cAnAry"}`, parseError + "expires_in is not a number", parseError + "expires_in is written in other letter case"},
		{"missing", `{"token":"a"}`, missing, missing},
		{"empty", `{"access_token":""}`, missing, missing},
		{"null", `{"access_token":null}`, missing, missing},
		{"body null", `null`, missing, missing},
	} {
		t.Run(test.name, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				want := test.want
				if strict && test.wantStrict != "" {
					want = test.wantStrict
				}
				a := reply{body: test.body}
				token, err := tokenOf(t, a, strict)
				if strings.HasPrefix(want, "oauth2: ") {
					requireFault(t, err, a, want)
					return
				}
				require.NoError(t, err)
				require.Equal(t, want, token.AccessToken)
			})
		})
	}
}

func TestP3a_OtherLetterCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, err := tokenOf(t, reply{body: `{"Access_Token":"a","Token_Type":"Bearer","EXPIRES_IN":"60","Refresh_Token":"r"}`}, false)
		require.NoError(t, err)
		require.Equal(t, "a", token.AccessToken)
		require.Equal(t, "Bearer", token.TokenType)
		require.Equal(t, "r", token.RefreshToken)
		require.Equal(t, time.Minute, time.Until(token.Expiry))
	})
	_, err := tokenOf(t, reply{status: http.StatusBadRequest, body: `{"Error":"invalid_client","Error_Description":"d"}`}, false)
	require.EqualError(t, err, `oauth2: "invalid_client" "d"`)
}

func TestP3a_Form(t *testing.T) {
	for _, test := range []struct{ name, body, want string }{
		{"exact", "access_token=a", "a"},
		{"twice", "access_token=a&access_token=b", "oauth2: cannot parse response: access_token appears more than once"},
		{"twice, once escaped", "access_token=a&access%5ftoken=b", "oauth2: cannot parse response: access_token appears more than once"},
		{"expires_in twice", "access_token=a&expires_in=1&expires_in=1", "oauth2: cannot parse response: expires_in appears more than once"},
		{"unknown twice", "access_token=a&scope=1&scope=2", "a"},
		{"other case", "Access_Token=a", "oauth2: server response missing access_token"},
		{"bad escape", "access_token=cAnAry%zz", "oauth2: cannot parse response: the body is not form-encoded"},
		{"semicolon", "access_token=cAnAry;x=1", "oauth2: cannot parse response: the body is not form-encoded"},
		{"empty", "", "oauth2: server response missing access_token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				a := reply{mediaType: formType, body: test.body}
				token, err := tokenOf(t, a, strict)
				if strings.HasPrefix(test.want, "oauth2: ") {
					requireFault(t, err, a, test.want)
					return
				}
				require.NoError(t, err)
				require.Equal(t, test.want, token.AccessToken)
			})
		})
	}
}

const badToken = ": access_token contains a character that a token cannot have"

func TestP3b_InvalidUTF8(t *testing.T) {
	for name, a := range map[string]reply{
		"byte":           {body: "{\"access_token\":\"cAn\xffAry\"}"},
		"cut rune":       {body: "{\"access_token\":\"cAnAry\xe2\x82\"}"},
		"surrogate":      {body: `{"access_token":"cAn\ud800Ary"}`},
		"low surrogate":  {body: `{"access_token":"cAnAry\udc00"}`},
		"surrogate pair": {body: `{"access_token":"cAnAry\ud83d\ude00"}`},
		"form":           {mediaType: formType, body: "access_token=cAn%FFAry"},
		"raw form":       {mediaType: formType, body: "access_token=cAn\xffAry"},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := "oauth2: cannot parse json"
			if a.mediaType == formType {
				prefix = "oauth2: cannot parse response"
			}
			modes(t, func(t *testing.T, strict bool) {
				_, err := tokenOf(t, a, strict)
				requireFault(t, err, a, prefix+badToken)
			})
		})
	}
	a := reply{body: "{\"access_token\":\"a\",\"token_type\":\"Bear\xffer\"}"}
	_, err := tokenOf(t, a, false)
	requireFault(t, err, a, "oauth2: cannot parse json: token_type is not an authentication scheme's name")
}

func TestP3c_TokenGrammar(t *testing.T) {
	var printable []byte
	for c := byte('!'); c <= '~'; c++ {
		printable = append(printable, c)
	}
	answers := func(token string) map[string]reply {
		quoted, err := json.Marshal(token)
		require.NoError(t, err)
		return map[string]reply{
			"oauth2: cannot parse json":     {body: `{"access_token":` + string(quoted) + `}`},
			"oauth2: cannot parse response": {mediaType: formType, body: "access_token=" + url.QueryEscape(token)},
		}
	}
	for _, a := range answers(string(printable)) {
		modes(t, func(t *testing.T, strict bool) {
			token, err := tokenOf(t, a, strict)
			require.NoError(t, err)
			require.Equal(t, string(printable), token.AccessToken)
		})
	}
	for _, bad := range []string{
		"cAn\rAry", "cAn\nAry", "cAnAry\r\nX-Injected: 1", "\ncAnAry", "cAnAry\n", "cAn\x00Ary", "cAn\tAry", "cAn\x1bAry", "cAn\x7fAry",
		"cAn Ary", " cAnAry", "cAnAry ", " ", "cAn\u00c4ry", "cAn\u2028Ary", "cAn\u202eAry", "\ufeffcAnAry", "cAn\u0100Ary",
	} {
		for prefix, a := range answers(bad) {
			t.Run(fmt.Sprintf("%q %s", bad, a.mediaType), func(t *testing.T) {
				modes(t, func(t *testing.T, strict bool) {
					_, err := tokenOf(t, a, strict)
					requireFault(t, err, a, prefix+badToken)
				})
			})
		}
	}
}

func TestP3c_NeverCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := reply{body: `{"access_token":"a\r\nX-Injected: 1","expires_in":3600}`}
		endpoint := newTokenEndpoint(bad, bad, reply{body: `{"access_token":"good","expires_in":3600}`})
		source := endpoint.config().Source(t.Context())
		for range 2 {
			_, err := source.TokenContext(t.Context())
			require.ErrorContains(t, err, "access_token contains a character")
			require.Equal(t, Failed, source.Status().State)
			time.Sleep(time.Minute)
		}
		token, err := source.TokenContext(t.Context())
		require.NoError(t, err)
		require.Equal(t, "good", token.AccessToken)
		require.Len(t, endpoint.received(), 3)
	})
}

func TestP3d_TokenType(t *testing.T) {
	for tokenType, want := range map[string]struct{ compat, strict string }{
		"":                      {},
		"Bearer":                {},
		"bearer":                {},
		"BEARER":                {},
		"N_A":                   {strict: "token_type is not Bearer"},
		"mac":                   {strict: "token_type is not Bearer"},
		"Basic":                 {strict: "token_type is not Bearer"},
		"urn":                   {strict: "token_type is not Bearer"},
		"!#$%&'*+-.^_`|~":       {strict: "token_type is not Bearer"},
		"Bearer\r\nX-cAnAry: 1": {compat: "token_type is not an authentication scheme's name"},
		"Bearer\x00":            {compat: "token_type is not an authentication scheme's name"},
		"cAnAry Bearer":         {compat: "token_type is not an authentication scheme's name"},
		"Bearer ":               {compat: "token_type is not an authentication scheme's name"},
		"Bearer,cAnAry":         {compat: "token_type is not an authentication scheme's name"},
		"cAnAry:x":              {compat: "token_type is not an authentication scheme's name"},
		"c\u00e4nary":           {compat: "token_type is not an authentication scheme's name"},
		"\u212aey":              {compat: "token_type is not an authentication scheme's name"},
		" ":                     {compat: "token_type is not an authentication scheme's name"},
	} {
		quoted, err := json.Marshal(tokenType)
		require.NoError(t, err)
		for prefix, a := range map[string]reply{
			"oauth2: cannot parse json: ":     {body: `{"access_token":"a","token_type":` + string(quoted) + `}`},
			"oauth2: cannot parse response: ": {mediaType: formType, body: "access_token=a&token_type=" + url.QueryEscape(tokenType)},
		} {
			t.Run(fmt.Sprintf("%q %s", tokenType, a.mediaType), func(t *testing.T) {
				modes(t, func(t *testing.T, strict bool) {
					text := want.compat
					if strict && text == "" {
						text = want.strict
					}
					token, err := tokenOf(t, a, strict)
					if text != "" {
						requireFault(t, err, a, prefix+text)
						return
					}
					require.NoError(t, err)
					require.Equal(t, tokenType, token.TokenType)
				})
			})
		}
	}
}

func TestP3e_DPoP(t *testing.T) {
	for _, tokenType := range []string{"DPoP", "dpop", "DPOP"} {
		modes(t, func(t *testing.T, strict bool) {
			a := reply{body: `{"access_token":"cAnAry","token_type":"` + tokenType + `"}`}
			_, err := tokenOf(t, a, strict)
			requireFault(t, err, a, "oauth2: cannot parse json: token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config.DPoP")
		})
	}
}

func TestP3f_Sniffing(t *testing.T) {
	const (
		object = `{"access_token":"a","expires_in":60,"x":["y"]}`
		form   = "access_token=a&expires_in=60&x=y"
		bom    = "\xef\xbb\xbf"
	)
	// Before Go 1.27 encoding/json stops at the first byte of such a character, and
	// then at the last.
	var afterBOM *json.SyntaxError
	require.ErrorAs(t, json.Unmarshal([]byte(bom+object), new(any)), &afterBOM)
	for _, test := range []struct {
		name, mediaType, body string
		want                  string // error; empty: the token
		extra                 any
	}{
		{"JSON", jsonType, object, "", []any{"y"}},
		{"JSON with charset", "application/json; charset=utf-8", object, "", []any{"y"}},
		{"JSON without type", "none", object, "", []any{"y"}},
		{"JSON as HTML", "text/html", object, "", []any{"y"}},
		{"JSON as text", "text/plain", object, "", []any{"y"}},
		{"JSON as text with charset", "text/plain; charset=utf-8", object, "", []any{"y"}},
		{"JSON as form", formType, object, "", []any{"y"}},
		{"JSON with BOM", jsonType, bom + object, "", []any{"y"}},
		{"JSON with BOM as text", "text/plain", bom + object, "", []any{"y"}},
		{"JSON after space", "text/plain", " \r\n\t" + object, "", []any{"y"}},
		{"form", formType, form, "", "y"},
		{"form with charset", formType + "; charset=utf-8", form, "", "y"},
		{"form as text", "text/plain", form, "", "y"},
		{"form with BOM", formType, bom + form, "", "y"},
		{"two BOMs", jsonType, bom + bom + object, fmt.Sprintf("oauth2: cannot parse json: syntax error at byte %d", afterBOM.Offset), nil},
		{"form as JSON", jsonType, form, "oauth2: cannot parse json: syntax error at byte 1", nil},
		{"form without type", "none", form, "oauth2: cannot parse json: syntax error at byte 1", nil},
		{"two objects", "text/plain", object + object, "oauth2: cannot parse json: syntax error at byte 47", nil},
		{"cut object", "text/plain", object[:20], "oauth2: cannot parse json: syntax error at byte 20", nil},
		{"array", jsonType, "[" + object + "]", "oauth2: cannot parse json: the body is not an object", nil},
		{"string", jsonType, `"access_token"`, "oauth2: cannot parse json: the body is not an object", nil},
		{"too deep", jsonType, `{"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, "oauth2: cannot parse json: syntax error at byte 10005", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				a := reply{mediaType: test.mediaType, body: test.body}
				token, err := tokenOf(t, a, strict)
				if test.want != "" {
					requireFault(t, err, a, test.want)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "a", token.AccessToken)
				require.EqualValues(t, 60, token.ExpiresIn)
				require.Equal(t, test.extra, token.Extra("x"))
			})
		})
	}
}

func TestP3g_NotATokenResponse(t *testing.T) {
	const large = maxResponseBody + 1
	for _, test := range []struct {
		name, mediaType string
		status          int
		body            string
		size            int
		want            string
	}{
		{"HTML", "text/html; charset=utf-8", 200, "<!DOCTYPE html><p>cAnAry", 24, "oauth2: cannot parse json: the body looks like HTML or XML; check that TokenURL is the token endpoint (status 200, text/html, 24 bytes)"},
		{"HTML after space", "text/html", 200, "\n <p>cAnAry", 11, "oauth2: cannot parse json: the body looks like HTML or XML; check that TokenURL is the token endpoint (status 200, text/html, 11 bytes)"},
		{"XML", "application/xml", 200, "<?xml?>", 7, "oauth2: cannot parse json: the body looks like HTML or XML; check that TokenURL is the token endpoint (status 200, application/xml, 7 bytes)"},
		{"No Content", "", 204, "", 0, "oauth2: cannot parse json: the body is empty (status 204, no media type, 0 bytes)"},
		{"empty", jsonType, 200, "", 0, "oauth2: cannot parse json: the body is empty (status 200, application/json, 0 bytes)"},
		{"space", jsonType, 200, " \n", 2, "oauth2: cannot parse json: the body is empty (status 200, application/json, 2 bytes)"},
		{"text", "text/plain", 200, "cAnAry", 6, "oauth2: server response missing access_token (status 200, text/plain, 6 bytes)"},
		{"too large", jsonType, 200, `{"access_token":"cAnAry"}` + strings.Repeat(" ", maxResponseBody), large, "oauth2: cannot fetch token: the answer is larger than 1 MiB (status 200, application/json, 1048577 bytes)"},
		{"too large form", formType, 201, `access_token=cAnAry&` + strings.Repeat("x", 3<<20), large, "oauth2: cannot fetch token: the answer is larger than 1 MiB (status 201, application/x-www-form-urlencoded, 1048577 bytes)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Content-Type"] = nil
					if test.mediaType != "" {
						w.Header().Set("Content-Type", test.mediaType)
					}
					w.WriteHeader(test.status)
					_, _ = io.WriteString(w, test.body)
				})
				conf.Strict = strict
				_, err := conf.Token(t.Context())
				require.EqualError(t, err, test.want)
				var fault *ResponseError
				require.ErrorAs(t, err, &fault)
				require.IsType(t, fault, err, "bare")
				require.Equal(t, test.status, fault.StatusCode)
				require.Equal(t, test.size, fault.Size)
				mediaType, _, _ := strings.Cut(test.mediaType, ";")
				require.Equal(t, mediaType, fault.MediaType)
				var refusal *oauth2.RetrieveError
				require.NotErrorAs(t, err, &refusal)
			})
		})
	}
}

func TestP3g_LargestBody(t *testing.T) {
	const head, tail = `{"access_token":"a","x":"`, `"}`
	body := head + strings.Repeat("x", maxResponseBody-len(head)-len(tail)) + tail
	token, err := tokenOf(t, reply{body: body}, true)
	require.NoError(t, err)
	require.Equal(t, "a", token.AccessToken)

	a := reply{body: body + "\n"}
	_, err = tokenOf(t, a, true)
	requireFault(t, err, a, "oauth2: cannot fetch token: the answer is larger than 1 MiB")
}

// The type's name and the address in Location are the server's words, too.
func TestP3g_LargeWords(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	_, err := tokenOf(t, reply{mediaType: "application/" + long, body: "?"}, false)
	var fault *ResponseError
	require.ErrorAs(t, err, &fault)
	require.Less(t, len(err.Error()), 4<<10, "media type")

	_, err = tokenOf(t, reply{status: 307, header: http.Header{"Location": {"https://" + long + ".example/"}}}, false)
	require.Less(t, len(err.Error()), 4<<10, "target of a redirect")
}

func TestP3h_Status(t *testing.T) {
	const ok = `{"access_token":"cAnAry-cAnAry","token_type":"Bearer","expires_in":60}`
	modes(t, func(t *testing.T, strict bool) {
		for _, status := range []int{200, 201, 202, 203, 205, 207, 299} {
			token, err := tokenOf(t, reply{status: status, body: ok}, strict)
			require.NoError(t, err, status)
			require.Equal(t, "cAnAry-cAnAry", token.AccessToken)
		}

		a := reply{status: http.StatusPartialContent, body: ok}
		_, err := tokenOf(t, a, strict)
		requireFault(t, err, a, "oauth2: cannot fetch token: the answer is a part of something larger")

		for _, status := range []int{300, 304, 400, 401, 404, 500, 503, 599} {
			_, err := tokenOf(t, reply{status: status, body: ok}, strict)
			require.IsType(t, (*oauth2.RetrieveError)(nil), err, status)
			require.NotContains(t, err.Error(), "cAnAry")
		}

		for _, a := range []reply{
			{body: `{"error":"invalid_client","error_description":"d","error_uri":"u"}`},
			{body: `{"error":"invalid_client","error_description":"d","error_uri":"u","access_token":"cAnAry-cAnAry"}`},
			{status: http.StatusPartialContent, body: `{"error":"invalid_client","error_description":"d","error_uri":"u"}`},
			{mediaType: formType, body: `error=invalid_client&error_description=d&error_uri=u`},
			{mediaType: "text/plain", body: `access_token=cAnAry-cAnAry&error=invalid_client&error_description=d&error_uri=u`},
		} {
			_, err := tokenOf(t, a, strict)
			require.EqualError(t, err, `oauth2: "invalid_client" "d" "u"`)
			refusal, ok := err.(*oauth2.RetrieveError)
			require.True(t, ok, "bare")
			require.Equal(t, "invalid_client", refusal.ErrorCode)
			require.Equal(t, "d", refusal.ErrorDescription)
			require.Equal(t, "u", refusal.ErrorURI)
			require.Equal(t, strings.ReplaceAll(a.body, "cAnAry-cAnAry", "[redacted]"), string(refusal.Body))
		}
	})
}

// The same on a wire, where net/http has its own ideas about some statuses.
func TestP3h_StatusOnTheWire(t *testing.T) {
	const body = `{"access_token":"cAnAry","expires_in":60}`
	for status, want := range map[int]string{
		200: "", 201: "", 202: "", 203: "",
		206: "oauth2: cannot fetch token: the answer is a part of something larger (status 206, application/json, 41 bytes)",
		304: "oauth2: cannot fetch token: 304 Not Modified\nResponse: ",
		503: "oauth2: cannot fetch token: 503 Service Unavailable\nResponse: " + `{"access_token":"[redacted]","expires_in":60}`,
	} {
		conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", jsonType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		token, err := conf.Token(t.Context())
		if want == "" {
			require.NoError(t, err)
			require.Equal(t, "cAnAry", token.AccessToken)
			continue
		}
		require.EqualError(t, err, want)
	}
}

func TestP4_NestedTypes(t *testing.T) {
	for name, kind := range map[string]string{
		"access_token": "a string", "token_type": "a string", "refresh_token": "a string",
		"error": "a string", "error_description": "a string", "error_uri": "a string",
		"expires_in": "a number",
	} {
		for _, value := range []string{`{"cAnAry":"x"}`, `["cAnAry"]`, `true`, `[[[["cAnAry"]]]]`} {
			t.Run(name+" "+value, func(t *testing.T) {
				body := `{"access_token":"a","` + name + `":` + value + `}`
				if name == "access_token" {
					body = `{"access_token":` + value + `}`
				}
				modes(t, func(t *testing.T, strict bool) {
					a := reply{body: body}
					_, err := tokenOf(t, a, strict)
					requireFault(t, err, a, "oauth2: cannot parse json: "+name+" is not "+kind)
				})
			})
		}
	}
	a := reply{body: `{"access_token":12345678901234567890}`}
	_, err := tokenOf(t, a, false)
	requireFault(t, err, a, "oauth2: cannot parse json: access_token is not a string")
}

// Every fault is told, on one line.
func TestP4_SeveralFaults(t *testing.T) {
	a := reply{body: `{"access_token":5,"token_type":{},"expires_in":"x"}`}
	_, err := tokenOf(t, a, false)
	requireFault(t, err, a, "oauth2: cannot parse json: access_token is not a string; token_type is not a string; expires_in is not a number")
}

// RFC 6749, Section 5.1: the client makes no assumptions about sizes.
func TestP4_LargeToken(t *testing.T) {
	large := strings.Repeat("0123456789", 90_000)
	for _, a := range []reply{
		{body: `{"access_token":"` + large + `"}`},
		{mediaType: formType, body: `access_token=` + large},
	} {
		modes(t, func(t *testing.T, strict bool) {
			token, err := tokenOf(t, a, strict)
			require.NoError(t, err)
			require.Equal(t, large, token.AccessToken)
		})
	}
}

func TestP5_GzipBomb(t *testing.T) {
	// One member of 16 MiB in 16 KiB. All that are sent make 16 GiB.
	var member bytes.Buffer
	w := gzip.NewWriter(&member)
	_, err := w.Write(bytes.Repeat([]byte(" "), 16<<20))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	const members = 1024

	done := make(chan int, 1)
	conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", jsonType)
		w.Header().Set("Content-Encoding", "gzip")
		sent := 0
		for sent < members {
			if _, err := w.Write(member.Bytes()); err != nil {
				break
			}
			sent++
		}
		done <- sent
	})

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = conf.Token(t.Context())
	runtime.ReadMemStats(&after)
	require.EqualError(t, err, "oauth2: cannot fetch token: the answer is larger than 1 MiB (status 200, application/json, 1048577 bytes)")
	var fault *ResponseError
	require.ErrorAs(t, err, &fault)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32<<20), "bytes allocated by client and server")
	conf.HTTPClient.CloseIdleConnections()
	require.Less(t, <-done, members, "the server got rid of all it had")
}

func TestP5_LargeHeaders(t *testing.T) {
	conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		line := strings.Repeat("cAnAry", 1<<20/6)
		for i := range 12 {
			w.Header().Set(fmt.Sprintf("X-Large-%d", i), line)
		}
		_, _ = io.WriteString(w, `{"access_token":"a"}`)
	})
	_, err := conf.Token(t.Context())
	require.ErrorContains(t, err, "server response headers exceeded")
	require.NotContains(t, err.Error(), "cAnAry")
	require.Less(t, len(err.Error()), 1<<10)
}

func TestP6_FormWithoutFraming(t *testing.T) {
	const (
		form   = "token_type=Bearer&access_token=cAnA" // It was cAnAry.
		object = `{"access_token":"cAnA"}`
		typed  = "Content-Type: application/x-www-form-urlencoded\r\n"
	)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := io.WriteString(w, form)
	require.NoError(t, err)
	require.NoError(t, w.Close())

	for _, test := range []struct {
		name, answer string
		wantStrict   string // error; empty: none
	}{
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n" + typed + "\r\n" + form, "oauth2: cannot parse response: a form-encoded answer without Content-Length may have been cut (status 200, application/x-www-form-urlencoded, 35 bytes)"},
		{"HTTP/1.1", "HTTP/1.1 200 OK\r\nConnection: close\r\n" + typed + "\r\n" + form, "oauth2: cannot parse response: a form-encoded answer without Content-Length may have been cut (status 200, application/x-www-form-urlencoded, 35 bytes)"},
		{"text", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + form, "oauth2: cannot parse response: a form-encoded answer without Content-Length may have been cut (status 200, text/plain, 35 bytes)"},
		{"Content-Length", "HTTP/1.0 200 OK\r\nContent-Length: 35\r\n" + typed + "\r\n" + form, ""},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + typed + "\r\n23\r\n" + form + "\r\n0\r\n\r\n", ""},
		{"gzip", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\n" + typed + "\r\n" + zipped.String(), ""},
		{"JSON", "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + object, ""},
		{"JSON as text", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + object, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				conf := serveRaw(t, test.answer)
				conf.Strict = strict
				token, err := conf.Token(t.Context())
				if strict && test.wantStrict != "" {
					require.EqualError(t, err, test.wantStrict)
					require.IsType(t, (*ResponseError)(nil), err)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "cAnA", token.AccessToken)
			})
		})
	}
}

func TestP6_FormOverHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", formType)
		_, _ = io.WriteString(w, "access_token=a")
		_ = http.NewResponseController(w).Flush() // Or there would be a Content-Length.
		_, _ = io.WriteString(w, "&x="+req.Proto)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	conf := &Config{ClientID: memoryID, TokenURL: server.URL, HTTPClient: server.Client(), Strict: true}
	token, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, "HTTP/2.0", token.Extra("x"))
}

func TestParseTokenURL(t *testing.T) {
	for _, address := range []string{
		"https://auth.example/token",
		"https://auth.example",
		"http://127.0.0.1:8080/token?tenant=1",
		"https://[::1]:8443/oauth2/token",
		"HTTPS://AUTH.EXAMPLE/token?a=%23",
		"https://auth.example/a%20b",
	} {
		u, err := parseTokenURL(address)
		require.NoError(t, err, address)
		require.NotNil(t, u, address)
	}
	for address, want := range badTokenURLs {
		_, err := parseTokenURL(address)
		require.EqualError(t, err, want, address)
	}
}

// badTokenURLs is what is wrong with some values of TokenURL.
var badTokenURLs = map[string]string{
	"":                                  "oauth2: TokenURL is empty; set it to the address of the token endpoint",
	"https://auth.example/cAnAry\n":     "oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint",
	" https://auth.example/cAnAry":      "oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint",
	"https://auth.example:cAnAry/":      "oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint",
	"https://u:cAnAry%zz@auth.example/": "oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint",
	"https://[::1/cAnAry":               "oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint",
	"auth.example/cAnAry":               "oauth2: TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host",
	"/cAnAry":                           "oauth2: TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host",
	"//auth.example/cAnAry":             "oauth2: TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host",
	"https:cAnAry":                      "oauth2: TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host",
	"https:///cAnAry":                   "oauth2: TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host",
	"https://id:cAnAry@auth.example/":   "oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret",
	"https://cAnAry@auth.example/":      "oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret",
	"https://@auth.example/cAnAry":      "oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret",
	"https://auth.example/#cAnAry":      "oauth2: TokenURL contains a fragment, which a token endpoint cannot have; remove the # and what follows",
	"https://auth.example/cAnAry#":      "oauth2: TokenURL contains a fragment, which a token endpoint cannot have; remove the # and what follows",
	"https://auth.example/?x=cAnAry#f":  "oauth2: TokenURL contains a fragment, which a token endpoint cannot have; remove the # and what follows",
}

// What is wrong with a Config is said by the first call that needs a token,
// whichever it is, before anything is sent.
func TestBadConfig(t *testing.T) {
	type row struct {
		change func(conf *Config)
		want   string
	}
	rows := map[string]row{
		"line break in ClientID": {func(conf *Config) { conf.ClientID = "cAnAry\n" }, "oauth2: ClientID contains a control character; remove line breaks and the like from where it is read"},
		"NUL in ClientID":        {func(conf *Config) { conf.ClientID = "cAn\x00Ary" }, "oauth2: ClientID contains a control character; remove line breaks and the like from where it is read"},
		"C1 in ClientID":         {func(conf *Config) { conf.ClientID = "cAn\u0085Ary" }, "oauth2: ClientID contains a control character; remove line breaks and the like from where it is read"},
		"scope twice": {func(conf *Config) {
			conf.Scopes = []string{"cAnAry"}
			conf.EndpointParams = url.Values{"scope": {"cAnAry"}}
		}, `oauth2: cannot overwrite parameter "scope"`},
		"negative EarlyRefresh": {func(conf *Config) { conf.EarlyRefresh = -1 }, "oauth2: EarlyRefresh is negative; use zero for the default"},
		"Strict and cleartext": {func(conf *Config) {
			conf.TokenURL, conf.Strict = "http://auth.example/cAnAry", true
		}, "oauth2: TokenURL is http, which Strict refuses; use https"},
		"negative MaxAttempts":    {func(conf *Config) { conf.Retry.MaxAttempts = -1 }, "oauth2: a field of Retry is negative; use zero for the default"},
		"negative AttemptTimeout": {func(conf *Config) { conf.Retry.AttemptTimeout = -1 }, "oauth2: a field of Retry is negative; use zero for the default"},
		"negative TotalTimeout":   {func(conf *Config) { conf.Retry.TotalTimeout = -1 }, "oauth2: a field of Retry is negative; use zero for the default"},
		"Strict and no credentials": {func(conf *Config) {
			conf.ClientID, conf.ClientSecret, conf.Strict = "", "", true
		}, "oauth2: ClientID and ClientSecret are empty; set them"},
	}
	for address, want := range badTokenURLs {
		rows[fmt.Sprintf("TokenURL %q", address)] = row{func(conf *Config) { conf.TokenURL = address }, want}
	}
	get := func(ctx context.Context, client *http.Client) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	background := t.Context()
	calls := map[string]func(conf *Config, ctx context.Context) error{
		"Token": func(conf *Config, ctx context.Context) error {
			_, err := conf.Token(ctx)
			return err
		},
		"TokenSource": func(conf *Config, ctx context.Context) error {
			_, err := conf.TokenSource(ctx).Token()
			return err
		},
		"Source": func(conf *Config, ctx context.Context) error {
			_, err := conf.Source(ctx).TokenContext(background)
			return err
		},
		"Client": func(conf *Config, ctx context.Context) error {
			err := get(background, conf.Client(ctx))
			var wrapped *url.Error
			if errors.As(err, &wrapped) {
				return wrapped.Err
			}
			return err
		},
		"Transport": func(conf *Config, ctx context.Context) error {
			err := get(background, &http.Client{Transport: conf.Transport(ctx)})
			var wrapped *url.Error
			if errors.As(err, &wrapped) {
				return wrapped.Err
			}
			return err
		},
	}
	for call, do := range calls {
		t.Run(call, func(t *testing.T) {
			for name, row := range rows {
				t.Run(name, func(t *testing.T) {
					endpoint := newTokenEndpoint(reply{body: `{"access_token":"a"}`})
					conf := endpoint.config()
					row.change(conf)
					ctx := context.WithValue(t.Context(), oauth2.HTTPClient, conf.HTTPClient)
					err := do(conf, ctx)
					require.EqualError(t, err, row.want)
					require.NotContains(t, err.Error(), "cAnAry")
					require.Empty(t, endpoint.received(), "nothing is sent")
				})
			}
			t.Run("nil context", func(t *testing.T) {
				endpoint := newTokenEndpoint(reply{body: `{"access_token":"a"}`})
				var none context.Context
				require.EqualError(t, do(endpoint.config(), none), "oauth2: the context is nil; pass context.Background() if there is no other")
				require.Empty(t, endpoint.received(), "nothing is sent")
			})
			t.Run("nil client in the context", func(t *testing.T) {
				conf := newTokenEndpoint(reply{body: `{"access_token":"a"}`}).config()
				conf.HTTPClient = nil
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, (*http.Client)(nil))
				require.EqualError(t, do(conf, ctx), "oauth2: the *http.Client in the context under oauth2.HTTPClient is nil")
			})
		})
	}
}

func TestF16_CleartextTokenURL(t *testing.T) {
	for address, strictly := range map[string]bool{
		"https://auth.example/token":   true,
		"http://auth.example/token":    false,
		"HTTP://auth.example/token":    false,
		"http://192.0.2.1/token":       false,
		"http://localhost.example/":    false,
		"http://127.0.0.1.example/":    false,
		"http://127.0.0.1:8080/token":  true,
		"http://127.9.9.9/token":       true,
		"http://[::1]:8080/token":      true,
		"http://localhost/token":       true,
		"http://LocalHost:8080/token":  true,
		"http://[::ffff:7f00:1]/token": true,
	} {
		modes(t, func(t *testing.T, strict bool) {
			endpoint := newTokenEndpoint(reply{body: `{"access_token":"a"}`})
			conf := endpoint.config()
			conf.TokenURL, conf.Strict = address, strict
			_, err := conf.Token(t.Context())
			if strict && !strictly {
				require.EqualError(t, err, "oauth2: TokenURL is http, which Strict refuses; use https")
				require.Empty(t, endpoint.received())
				return
			}
			require.NoError(t, err, address)
		})
	}
}

// RFC 6749, Sections 3.2 and 4.4.2.
func TestTokenRequest(t *testing.T) {
	endpoint := newTokenEndpoint(reply{body: `{"access_token":"a"}`})
	conf := endpoint.config()
	conf.Scopes = []string{"read", "write"}
	conf.EndpointParams = url.Values{"resource": {"https://a.example", "https://b.example"}, "audience": {"x y"}}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)

	conf.Scopes = nil
	conf.EndpointParams = url.Values{"grant_type": {"refresh_token"}, "scope": {"own"}, "refresh_token": {"kept"}}
	token, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, "kept", token.RefreshToken)

	received := endpoint.received()
	require.Len(t, received, 2)
	require.Equal(t, url.Values{
		"grant_type": {"client_credentials"},
		"scope":      {"read write"},
		"resource":   {"https://a.example", "https://b.example"},
		"audience":   {"x y"},
	}, received[0].form)
	require.Equal(t, formType, received[0].header.Get("Content-Type"))
	require.Equal(t, url.Values{"grant_type": {"refresh_token"}, "scope": {"own"}, "refresh_token": {"kept"}}, received[1].form)
}

// The credentials of one attempt are left neither in the next nor in the Config.
func TestTokenRequestIsACopy(t *testing.T) {
	endpoint := newTokenEndpoint(reply{body: `{"access_token":"a"}`})
	conf := endpoint.config()
	conf.EndpointParams = url.Values{"resource": {"https://a.example"}}
	request, err := newTokenRequest(t.Context(), conf, nil)
	require.NoError(t, err)
	conf.EndpointParams["resource"][0] = "https://b.example"
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
		_, err = request.send(t.Context(), style)
		require.NoError(t, err)
	}
	require.Equal(t, url.Values{"resource": {"https://b.example"}}, conf.EndpointParams)
	received := endpoint.received()
	require.Equal(t, []string{"params", "header"}, authMethods(t, received))
	require.Equal(t, "https://a.example", received[1].form.Get("resource"))
}
