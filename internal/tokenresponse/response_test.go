package tokenresponse

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

// outcome reads an answer and returns the access token in it, or what is wrong with it.
func outcome(mediaType, body string, strict bool) string {
	r, err := Parse([]byte(body), mediaType, strict)
	switch {
	case err != nil:
	case r.AccessToken == "":
		return "no token"
	default:
		err = r.Check(strict, false)
	}
	if err != nil {
		return err.Error()
	}
	return r.AccessToken
}

// A row is an answer, and what is read from it.
type row struct {
	mediaType, body string
	want            string // by default, as outcome returns it
	wantStrict      string // in strict mode; empty: the same
}

func checkRows(t *testing.T, rows []row) {
	t.Helper()
	for _, row := range rows {
		require.Equal(t, row.want, outcome(row.mediaType, row.body, false), "%s: %q", row.mediaType, row.body)
		if row.wantStrict != "" {
			row.want = row.wantStrict
		}
		require.Equal(t, row.want, outcome(row.mediaType, row.body, true), "%s: %q, strict", row.mediaType, row.body)
	}
}

// rowsFor returns the two answers, in JSON and form-encoded, in which member has that value.
func rowsFor(t *testing.T, member, value, want, wantStrict string) []row {
	quoted, err := json.Marshal(value)
	require.NoError(t, err)
	object, form := `"`+member+`":`+string(quoted), member+"="+url.QueryEscape(value)
	if member != "access_token" {
		object, form = object+`,"access_token":"a"`, form+"&access_token=a"
	}
	return []row{{jsonType, "{" + object + "}", want, wantStrict}, {formType, form, want, wantStrict}}
}

// spellings returns the answers in which expires_in is that text: as a string in JSON, in
// a form, and as a number in JSON if it can be one.
func spellings(text string) []row {
	quoted, _ := json.Marshal(text) // A string can always be encoded.
	answers := []row{
		{mediaType: jsonType, body: `{"access_token":"a","expires_in":` + string(quoted) + `}`},
		{mediaType: formType, body: "access_token=a&expires_in=" + url.QueryEscape(text)},
	}
	if json.Valid([]byte(text)) && text == strings.TrimSpace(text) {
		answers = append(answers, row{mediaType: jsonType, body: `{"access_token":"a","expires_in":` + text + `}`})
	}
	return answers
}

func checkExpiresIn(t *testing.T, rows map[string]int64) {
	t.Helper()
	for text, want := range rows {
		for _, answer := range spellings(text) {
			parsed, err := Parse([]byte(answer.body), answer.mediaType, true)
			require.NoError(t, err, answer.body)
			require.Equal(t, want, parsed.ExpiresIn, answer.body)
		}
	}
}

func TestP1_ExpiresIn(t *testing.T) {
	checkExpiresIn(t, map[string]int64{
		"3600": 3600, "3600.0": 3600, "3600.5": 3600, "59.999": 59, "1.999": 1, "1.": 1, "01": 1, "+1": 1,
		"1e3": 1000, "1E3": 1000, "1.5e+1": 15, "36000e-1": 3600, "1e0": 1, "12e1": 120,
		"-1": -1, "-1.001": -2,

		// Zero would mean that the token doesn't expire, even where a float64 can't hold
		// more.
		"0.5": 1, ".5": 1, "1e-300": 1, "1e-400": 1, "0.1e-9999": 1, "-0.5": -1, "-.5": -1, "-1e-400": -1,
	})
}

func TestP1_ExpiresInNotANumber(t *testing.T) {
	checkRows(t, []row{
		{jsonType, `{"access_token":"a","expires_in":true}`, "expires_in is not a number", ""},
		{jsonType, `{"access_token":"a","expires_in":[3600]}`, "expires_in is not a number", ""},
	})
}

func TestP1b_NeverExpires(t *testing.T) {
	checkExpiresIn(t, map[string]int64{"": 0, "0": 0, "00": 0, "-0": 0, "+0": 0, "0.0": 0, "0e9": 0})
	for _, answer := range []row{
		{mediaType: jsonType, body: `{"access_token":"a","expires_in":null}`},
		{mediaType: jsonType, body: `{"access_token":"a"}`},
		{mediaType: formType, body: `access_token=a`},
	} {
		parsed, err := Parse([]byte(answer.body), answer.mediaType, true)
		require.NoError(t, err, answer.body)
		require.Zero(t, parsed.ExpiresIn, answer.body)
	}
}

func TestP1d_Clamp(t *testing.T) {
	checkExpiresIn(t, map[string]int64{
		"2147483646.9": maxSeconds - 1, "2147483647": maxSeconds, "2147483647.9": maxSeconds, "2147483648": maxSeconds, "99999999999": maxSeconds,
		"9223372036854775807": maxSeconds, "9223372036854775808": maxSeconds, "9e9": maxSeconds, "1e300": maxSeconds,
		"1e999": maxSeconds, strings.Repeat("9", 999): maxSeconds, // beyond float64
		"-2147483646.1": -maxSeconds, "-2147483647": -maxSeconds, "-2147483648": -maxSeconds, "-2147483649": -maxSeconds,
		"-9223372036854775808": -maxSeconds, "-9e9": -maxSeconds, "-1e300": -maxSeconds, "-1e999": -maxSeconds,
	})
}

func TestP2_FormExpiresIn(t *testing.T) {
	for _, text := range []string{
		" ", "-", "+", ".", "e", "e5", "1e", "1e+", "1.2.3", "--1", "+-1", "1-1", "0x1", "0x10", "0x1p3", "0b1", "0o7", "1_0", "1_000", "_1", "nan", "NaN",
		"inf", "-Inf", "Infinity", "+infinity", "1 ", " 1", "3600 ", " 3600", "1\n", "1\x00", "abc", "cAnAry", "1,5", "3,600", "\u0661", "\uff11", "1f", "1d", "3600s",
	} {
		checkRows(t, rowsFor(t, "expires_in", text, "expires_in is not a number", ""))
	}
}

// refresh_in isn't in RFC 6749: a value that can't be read is ignored.
func TestRefreshIn(t *testing.T) {
	for text, want := range map[string]int64{
		"1800": 1800, "1800.9": 1800, `"1800"`: 1800, `"soon"`: 0, "true": 0, "null": 0, `""`: 0, "1e999": maxSeconds, "[1]": 0,
		`1,"refresh_in":2`: 0, `1,"refresh_in":1,"refresh_in":1`: 0, `1,"Refresh_In":2,"REFRESH_IN":2`: 1,
	} {
		parsed, err := Parse([]byte(`{"access_token":"a","refresh_in":`+text+`}`), jsonType, true)
		require.NoError(t, err, text)
		require.Equal(t, want, parsed.RefreshIn, text)
	}
	parsed, err := Parse([]byte("access_token=a&refresh_in=1&refresh_in=2"), formType, true)
	require.NoError(t, err)
	require.Zero(t, parsed.RefreshIn)
}

// RFC 6749, Section 5.1: the client must ignore members that it doesn't know.
func TestUnknownMembersAreIgnored(t *testing.T) {
	for _, value := range []string{`1e999`, `-1e999`, `{"a":[1e999]}`, `"\ud800"`, `[[]]`, `1,"x":2`, `true`} {
		parsed, err := Parse([]byte(`{"access_token":"a","x":`+value+`,"y":"kept"}`), jsonType, true)
		require.NoError(t, err, value)
		require.Equal(t, "a", parsed.AccessToken, value)
		require.Equal(t, "kept", parsed.Raw.(map[string]any)["y"], value)
	}
}

func TestP3a_MemberNames(t *testing.T) {
	const twice, otherCase = "access_token appears more than once", "access_token is written in other letter case"
	rows := []row{
		{jsonType, `{"access\u005ftoken":"a"}`, "a", ""},
		{jsonType, `{"access_token":"a","scope":"1","scope":"2"}`, "a", ""},
		{jsonType, `{"access_token":"a","x":{"access_token":"b"}}`, "a", ""},
		{jsonType, `{"token":"a"}`, "no token", ""},
		{jsonType, `{"access_token":""}`, "no token", ""},
		{jsonType, `null`, "no token", ""},
		{jsonType, `{"access_token":"a","\u0061ccess_token":"a"}`, twice, ""},
		{jsonType, `{"access_token":"a","access_token":null}`, twice, ""},
		{jsonType, `{"access_token":"a"` + strings.Repeat(`,"access_token":"b"`, 1000) + `}`, twice, ""},
		{jsonType, `{"access_token":"a"` + strings.Repeat(`,"expires_in":1,"error":1`, 1000) + `}`, "error is not a string\nexpires_in appears more than once\nerror appears more than once", ""},

		// The long s and the Kelvin sign are s and k to a reader that ignores case.
		{jsonType, `{"access_token":"a","acce\u017f\u017f_token":"b"}`, "a", ""},
		{jsonType, `{"acceſſ_token":"b"}`, "no token", ""},
		{jsonType, `{"access_to\u212aen":"b"}`, "no token", ""},

		// A name is written in other letter case.
		{jsonType, `{"ACCESS_TOKEN":"a"}`, "a", otherCase},
		{jsonType, `{"access_token":"a","Access_Token":"b"}`, "a", ""},
		{jsonType, `{"Access_Token":"b","access_token":"a"}`, "a", ""},
		{jsonType, `{"Access_Token":"b","access_token":null}`, "no token", ""},
		{jsonType, `{"Access_Token":"a","ACCESS_TOKEN":"a"}`, twice, otherCase},
		{jsonType, `{"access_token":"a","Expires_In":"cAnAry"}`, "expires_in is not a number", "expires_in is written in other letter case"},
	}
	for _, name := range []string{"token_type", "expires_in", "refresh_token", "error", "error_description", "error_uri"} {
		rows = append(rows, row{jsonType, `{"access_token":"a","` + name + `":"1","` + name + `":"2"}`, name + " appears more than once", ""})
	}
	checkRows(t, rows)
}

// A program may send a refresh_token, which belongs to the Response then, too.
func TestCompactWithRefreshToken(t *testing.T) {
	body := []byte(`{"access_token":"cAnAry","x":1}`)
	r, err := Parse(body, jsonType, false)
	require.NoError(t, err)
	r.RefreshToken = "of the program"
	require.Equal(t, Compact{`{"access_token":"","x":1}`, false}, r.Compact(body))
}

func TestP3a_Form(t *testing.T) {
	checkRows(t, []row{
		{formType, "access_token=a", "a", ""},
		{formType, "access_token=a&access_token=b", "access_token appears more than once", ""},
		{formType, "access_token=a&expires_in=1&expires_in=1", "expires_in appears more than once", ""},
		{formType, "access_token=a&scope=1&scope=2", "a", ""},
		{formType, "Access_Token=a", "no token", ""},
		{formType, "access_token=cAnAry%zz", "the body is not form-encoded", ""},
		{formType, "access_token=cAnAry;x=1", "the body is not form-encoded", ""},
		{formType, "", "no token", ""},
	})
}

const (
	control = "access_token contains a control character, which no header field can hold"
	notUTF8 = "access_token is not valid UTF-8"
	notB64  = "access_token contains a character that RFC 6750, Section 2.1, doesn't allow"
)

func TestP3b_InvalidUTF8(t *testing.T) {
	checkRows(t, []row{
		{jsonType, "{\"access_token\":\"cAn\xffAry\"}", notUTF8, ""},
		{jsonType, "{\"access_token\":\"cAnAry\xe2\x82\"}", notUTF8, ""}, // a part of a character
		{jsonType, `{"access_token":"cAn\ud800Ary"}`, notUTF8, ""},
		{jsonType, `{"access_token":"cAnAry\ud83d\ude00"}`, "cAnAry\U0001F600", notB64}, // a pair of surrogates
		{formType, "access_token=cAn%FFAry", "cAn\xffAry", notB64},
		{jsonType, "{\"access_token\":\"a\",\"token_type\":\"Bear\xffer\"}", "a", "token_type is not Bearer"},
	})
}

// Any token that a header field can hold is sent. Strict wants the grammar of RFC 6750.
func TestP3c_P8_TokenGrammar(t *testing.T) {
	for _, good := range []string{b64token, "a", "abc=", "abc==", "-._~+/"} {
		checkRows(t, rowsFor(t, "access_token", good, good, ""))
	}
	for _, odd := range []string{
		"cAn Ary", " cAnAry", "cAnAry ", " ", "cAn\tAry", "cAn\u00c4ry", "cAn\u2028Ary", "\ufeffcAnAry", "cAn\u0100Ary", "a=b", "!\"#$%&'()*,:;<>?@[\\]^`{|}",
	} {
		checkRows(t, rowsFor(t, "access_token", odd, odd, notB64))
	}
	for _, bad := range []string{"cAn\rAry", "cAn\nAry", "cAnAry\r\nX-Injected: 1", "\ncAnAry", "cAnAry\n", "cAn\x00Ary", "cAn\x1bAry", "cAn\x7fAry"} {
		checkRows(t, rowsFor(t, "access_token", bad, control, ""))
	}
}

func TestP3d_P7_TokenTypes(t *testing.T) {
	for tokenType, scheme := range map[string]string{
		"": "Bearer", "Bearer": "Bearer", "bearer": "Bearer", "BEARER": "Bearer",
		"N_A": "N_A", "mac": "MAC", "basic": "Basic", "urn": "urn", "!#$%&'*+-.^_`|~": "!#$%&'*+-.^_`|~",
		// What isn't the name of a scheme is sent as Bearer.
		"Bearer ": "Bearer", " bearer": "Bearer", "cAnAry Bearer": "Bearer", "Bearer,cAnAry": "Bearer", "cAnAry:x": "Bearer",
		"urn:ietf:params:oauth:token-type:access_token": "Bearer", "c\u00e4nary": "Bearer", "\u212aey": "Bearer", " ": "Bearer", "Access Token": "Bearer",
	} {
		want := "token_type is not Bearer"
		if ascii.EqualFold(tokenType, "Bearer") || tokenType == "" {
			want = "a"
		}
		checkRows(t, rowsFor(t, "token_type", tokenType, "a", want))
		require.Equal(t, scheme, (&Response{TokenType: tokenType}).Scheme(), tokenType)
	}
	for _, tokenType := range []string{"Bearer\r\nX-cAnAry: 1", "Bearer\x00", "\nBearer"} {
		checkRows(t, rowsFor(t, "token_type", tokenType, "token_type contains a control character, which no header field can hold", ""))
	}
}

// RFC 9449, Section 5: a DPoP token is for a client that has a key, and such a client
// accepts no other token.
func TestP3e_DPoP(t *testing.T) {
	const noKey = "token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config.DPoP"
	for _, strict := range []bool{false, true} {
		for tokenType, want := range map[string][2]string{ // without a key, and with one
			"DPoP": {noKey, ""}, "dpop": {noKey, ""}, "DPOP": {noKey, ""}, "DPoP ": {noKey, ""},
			"Bearer": {"", "token_type is not DPoP: the server hasn't bound the token to the key"},
			"":       {"", "token_type is not DPoP: the server hasn't bound the token to the key"},
		} {
			for i, bound := range []bool{false, true} {
				err := (&Response{AccessToken: "a", TokenType: tokenType}).Check(strict, bound)
				if want[i] == "" {
					require.NoError(t, err, tokenType)
				} else {
					require.EqualError(t, err, want[i], tokenType)
				}
			}
		}
	}
}

func TestP3f_Sniffing(t *testing.T) {
	const (
		object = `{"access_token":"a","expires_in":60,"x":["y"]}`
		form   = "access_token=a&expires_in=60&x=y"
		bom    = "\xef\xbb\xbf"
		syntax = "syntax error at byte "
	)
	// Before Go 1.27, encoding/json reports the first byte of such a character, and since
	// then the last.
	var afterBOM *json.SyntaxError
	require.ErrorAs(t, json.Unmarshal([]byte(bom+object), new(any)), &afterBOM)
	for mediaType, bodies := range map[string][]string{
		jsonType:     {object, bom + object},
		"":           {object},
		"text/html":  {object},
		"text/plain": {object, bom + object, " \r\n\t" + object, form},
		formType:     {object, form, bom + form},
	} {
		for _, body := range bodies {
			r, err := Parse([]byte(body), mediaType, true)
			require.NoError(t, err)
			require.Equal(t, "a", r.AccessToken)
			require.EqualValues(t, 60, r.ExpiresIn)
			isForm := strings.HasSuffix(body, form)
			require.Equal(t, isForm, r.Form)
			if isForm {
				require.Equal(t, url.Values{"access_token": {"a"}, "expires_in": {"60"}, "x": {"y"}}, r.Raw)
			} else {
				require.Equal(t, []any{"y"}, r.Raw.(map[string]any)["x"])
			}
		}
	}
	checkRows(t, []row{
		{jsonType, bom + bom + object, fmt.Sprint(syntax, afterBOM.Offset), ""},
		{jsonType, form, syntax + "1", ""},
		{"", form, syntax + "1", ""},
		{"text/plain", object + object, syntax + "47", ""},
		{jsonType, "[" + object + "]", "the body is not an object", ""},
		{jsonType, `{"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, syntax + "10005", ""},
	})
}

func TestP3g_NotJSON(t *testing.T) {
	const looksLikeHTML = "the body looks like HTML or XML; check that TokenURL is the token endpoint"
	checkRows(t, []row{
		{"text/html", "<!DOCTYPE html><p>cAnAry", looksLikeHTML, ""},
		{"application/xml", "\n <?xml?>", looksLikeHTML, ""},
		{"", "", "the body is empty", ""},
		{jsonType, " \n", "the body is empty", ""},
		{"text/plain", "cAnAry", "no token", ""},
	})
}

func TestP4_NestedTypes(t *testing.T) {
	for _, name := range []string{"access_token", "token_type", "refresh_token", "error", "error_description", "error_uri", "expires_in"} {
		kind := "a string"
		if name == "expires_in" {
			kind = "a number"
		}
		for _, value := range []string{`{"cAnAry":"x"}`, `["cAnAry"]`, `true`, `[[[["cAnAry"]]]]`} {
			checkRows(t, []row{{jsonType, `{"` + name + `":` + value + `}`, name + " is not " + kind, ""}})
		}
	}
	checkRows(t, []row{{jsonType, `{"access_token":12345678901234567890}`, "access_token is not a string", ""}})
}

// FuzzSeconds reads a text as a number of seconds.
func FuzzSeconds(f *testing.F) {
	for _, text := range []string{
		"", "0", "-0", "1", "3600", "3600.0", "3600.5", "1e3", "0.5", "-0.5", "1e-400", "-1", "10", "2147483647", "2147483648", "-2147483648", "-2147483649",
		"99999999999", "-9223372036854775808", "1e999", "-1e999", "abc", "01", "+5", ".5", "5.", "0x10", "1_0", "NaN", "Inf", " 1", "1 ", "\u0661", "true", "null", "{}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 10_000 {
			t.Skip("nothing new")
		}
		seconds, err := parseSeconds(text)
		checkSeconds(t, text, seconds, err)
	})
}

// checkSeconds compares what parseSeconds returns with arithmetic of more digits.
func checkSeconds(t *testing.T, text string, seconds int64, err error) {
	if text == "" {
		require.NoError(t, err)
		require.Zero(t, seconds)
		return
	}
	require.Equal(t, decimal.MatchString(text), err == nil, "%q: %v", text, err)
	if err != nil {
		require.EqualError(t, err, "is not a number")
		return
	}
	number := exactly(text)
	if number == nil {
		return
	}
	exact, _ := number.Int64() // It drops the fraction, and clamps to 64 bits.
	switch {
	case exact != 0 || number.Sign() == 0:
		// TestP1_ExpiresIn and TestP1d_Clamp have the rounding.
		require.InDelta(t, min(max(exact, -maxSeconds), maxSeconds), seconds, 1, "%q", text)
	default:
		require.EqualValues(t, number.Sign(), seconds, "%q", text)
	}
}

var decimal = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

// exactly returns the value of a decimal number, or nil if its exponent is so large that
// the computation would take long.
func exactly(text string) *big.Float {
	_, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if len(strings.TrimLeft(exponent, "+-0")) > 5 {
		return nil
	}
	number, _, err := big.ParseFloat(text, 10, 2000, big.ToNearestEven)
	if err != nil {
		return nil
	}
	return number
}
