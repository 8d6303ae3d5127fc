package challenge

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestError(t *testing.T) {
	for _, test := range []struct {
		values []string
		code   string
		found  bool
	}{
		{nil, "", false},
		{[]string{"Bearer"}, "", true},
		{[]string{`Bearer error="invalid_token"`}, "invalid_token", true},
		{[]string{`bearer ERROR=invalid_token`}, "invalid_token", true},
		{[]string{`Bearer realm="a, error=\"x\"", error = "invalid_token" ,error_description="y"`}, "invalid_token", true},
		{[]string{`Basic realm="x", error="invalid_token"`}, "", false},
		{[]string{`Basic realm="x", Bearer realm="y", error="invalid_token"`}, "invalid_token", true},
		{[]string{`Bearer realm="y", Basic error="invalid_token"`}, "", true},
		{[]string{`Negotiate abc==, Bearer error="invalid_token"`}, "invalid_token", true},
		{[]string{`Negotiate`, `Bearer error="invalid_token"`}, "invalid_token", true},
		{[]string{`Bearer error="invalid_token", Bearer error="insufficient_scope"`}, "invalid_token", true},
		{[]string{`Bearer error="invalid_token`}, "", true},
		{[]string{`Bearer error="a\"b\\c"`}, `a"b\c`, true},
		{[]string{`Bearer error=`}, "", true},
		{[]string{`=,;Bearer error=invalid_token`}, "invalid_token", true},
		{[]string{`Bearers error="invalid_token"`}, "", false},
		{[]string{`,,, Bearer ,, error="invalid_token"`}, "invalid_token", true},
	} {
		code, found := Error(test.values, "Bearer")
		require.Equal(t, test.code, code, "%q", test.values)
		require.Equal(t, test.found, found, "%q", test.values)
	}
}

func TestParameters(t *testing.T) {
	const scope = `Bearer error="insufficient_scope", scope="write"`
	for _, test := range []struct {
		values []string
		want   string // error, scope, claims and realm; empty: there is no challenge
	}{
		{[]string{scope}, "insufficient_scope,write,,"},
		{[]string{`Bearer realm="a", ` + scope}, "insufficient_scope,write,,"},
		{[]string{`Bearer realm="a"`, `Basic realm="b"`, scope}, "insufficient_scope,write,,"},
		{[]string{`Bearer realm="a", Bearer scope="read", Bearer claims="c"`}, ",,c,"},
		{[]string{scope + `, Bearer error="invalid_token"`}, "insufficient_scope,write,,"},
		{[]string{`Bearer error="invalid_token"`, scope}, "invalid_token,,,"},
		{[]string{`Bearer realm="a"`, `Bearer realm="b", scope="read"`}, ",,,a"},
		{[]string{`Bearer realm="a", Basic error="x", Bearer`}, ",,,a"},
		{[]string{`Bearer scope=a, SCOPE=b, error=`, `Bearer error=x`}, "x,,,"},
		{[]string{`Bearer scope=a, SCOPE=b`}, ",a,,"},
		{[]string{`Basic realm="a"`, `error="x"`}, ""},
		{[]string{"bearer"}, ",,,"},
	} {
		parameters, found := Parameters(test.values, "Bearer")
		require.Equal(t, test.want != "", found, "%q", test.values)
		if found {
			require.Equal(t, test.want, strings.Join([]string{parameters["error"], parameters["scope"], parameters["claims"], parameters["realm"]}, ","), "%q", test.values)
		}
	}
}

func TestF37_Says(t *testing.T) {
	for value, want := range map[string]bool{
		`OAuth2 error="invalid_token"`:                  true,
		`error="invalid_token"`:                         true,
		`JWT realm=x, error = Invalid_Token`:            true,
		`Bearer realm="x", Token error='invalid_token'`: true,
		`OAuth2 error="invalid_tokens"`:                 false,
		`OAuth2 error_description="invalid_token"`:      false,
		`OAuth2 realm="error=invalid_token"`:            false,
		``:                                              false,
	} {
		require.Equal(t, want, Says([]string{"Basic", value}, "invalid_token"), value)
	}
}

// FuzzWWWAuthenticate checks that the parser finds a code only in a Bearer challenge,
// whatever is before and after it.
func FuzzWWWAuthenticate(f *testing.F) {
	for _, value := range []string{
		"", "Bearer", `Bearer error="invalid_token"`, `Basic realm="x", Bearer error=invalid_token`,
		`Negotiate abc==`, `Bearer error="a\"b`, `=,;"\`, `Bearer realm="a, error=\"x\"", error = "invalid_token"`,
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		code, found := Error([]string{value}, "Bearer")
		require.True(t, found || code == "", "a code without a challenge")
		require.True(t, !found || strings.Contains(strings.ToLower(value), "bearer"))
		for _, part := range strings.FieldsFunc(code, func(r rune) bool { return r == '"' || r == '\\' }) {
			require.Contains(t, strings.ReplaceAll(value, `\`, ""), part)
		}

		// A challenge in another header field is found.
		code, found = Error([]string{`Bearer error="invalid_token"`, value}, "Bearer")
		require.True(t, found)
		require.Equal(t, "invalid_token", code)

		// A challenge in a quoted string isn't one.
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
		_, found = Error([]string{`Basic realm="` + quoted + `"`}, "Bearer")
		require.False(t, found)
	})
}
