package clientcredentials

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChallengeError(t *testing.T) {
	for _, test := range []struct {
		values []string
		code   string
		found  bool
	}{
		{nil, "", false},
		{[]string{""}, "", false},
		{[]string{"Bearer"}, "", true},
		{[]string{`Bearer realm="x"`}, "", true},
		{[]string{`Bearer error="invalid_token"`}, "invalid_token", true},
		{[]string{`bearer ERROR=invalid_token`}, "invalid_token", true},
		{[]string{`Bearer realm="a, error=\"x\"", error = "invalid_token" ,error_description="y"`}, "invalid_token", true},
		{[]string{`Bearer error="insufficient_scope", scope="a b"`}, "insufficient_scope", true},
		{[]string{`Basic realm="x"`}, "", false},
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
		code, found := challengeError(test.values, "Bearer")
		require.Equal(t, test.code, code, "%q", test.values)
		require.Equal(t, test.found, found, "%q", test.values)
	}
}
