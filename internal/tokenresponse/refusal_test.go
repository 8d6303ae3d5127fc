package tokenresponse

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestF28_Temporary(t *testing.T) {
	for _, test := range []struct {
		code     string
		statuses []int
		want     bool
	}{
		{"", []int{400, 401, 403, 404, 407, 422, 451, 501, 505, 506, 508, 510, 511, 526, 600}, false},
		{"", []int{408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 525, 527, 529, 530, 598, 599}, true},
		{"server_error", []int{400, 401, 500}, true},
		{"temporarily_unavailable", []int{200, 400, 401, 403}, true},
		{"slow_down", []int{400, 403, 429}, true},
		{"invalid_client", []int{400, 401, 500, 502}, false},
		{"invalid_scope", []int{400, 500}, false},
		{"invalid_client", []int{429, 503}, true},
		{"as_drawn", []int{400}, false},
		{"as_drawn", []int{502}, true},
	} {
		for _, status := range test.statuses {
			require.Equal(t, test.want, IsTemporary(status, test.code), "%d %s", status, test.code)
		}
	}
}

// The error for an answer without a token has the server's own words.
func TestP9_Words(t *testing.T) {
	long := strings.Repeat("x", 50)
	for _, test := range []struct{ mediaType, body, want string }{
		{jsonType, `{"ret":7,"reason":"app disabled"}`, "it says reason: app disabled, ret: 7"},
		{jsonType, `{"error":{"code":"E7","message":"no such app"}}`, "it says error.code: E7, error.message: no such app"},
		{jsonType, `{"errors":[{"detail":"wrong app"},{"detail":"y"}],"ok":false}`, "it says errors.detail: wrong app"},
		{jsonType, `{"data":{"status":401,"Message":"denied"}}`, "it says data.Message: denied, data.status: 401"},
		{jsonType, `{"success":false,"value":"abc"}`, `it has "success", "value"`},
		{jsonType, `{"message":"` + long + `"}`, `it has "message"`},
		{jsonType, `{"error_token":"abc","message":{"err_secret":"abc"}}`, `it has "error_token", "message"`},
		{jsonType, `{"error":{"token":"abc"}}`, `it has "error"`},
		{jsonType, `{"token":"abc","secret":"s"}`, `it has "secret", "token"`},
		{jsonType, `{"eyJ0eXAi":1,"error":{"T0k3n":"x"}}`, `it has "error"`},
		{jsonType, `{}`, ""},
		{jsonType, `[1]`, ""},
		{formType, "ret=7&reason=app+disabled", "it says reason: app disabled, ret: 7"},
		{"text/plain", "app disabled", `it has "app disabled"`},
		{jsonType, `{"error":{"error":{"error":{"error":"deep"}}},"message":"shallow"}`, "it says message: shallow"},
		{jsonType, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`, `it has "a", "b", "c", "d", "e", "f", "g", "h", …`},
	} {
		r, _ := Parse([]byte(test.body), test.mediaType, false)
		require.Equal(t, test.want, r.Words(nil), test.body)
	}
}

func TestP9_Explanation(t *testing.T) {
	for _, test := range []struct{ code, description, mediaType, body, want string }{
		{"", "", jsonType, `{"ret":7,"reason":"app disabled"}`, "it says reason: app disabled, ret: 7"},
		{"", "", jsonType, `{"error":{"code":"E7","message":"no such app"}}`, "it says error.code: E7, error.message: no such app"},
		{"unauthorized", "", jsonType, `{"error":"unauthorized","message":"wrong app","x":1}`, "it says message: wrong app"},
		{"unauthorized", "", jsonType, `{"error":"unauthorized","x":1}`, ""},
		{"unauthorized", "wrong app", jsonType, `{"error":"unauthorized","error_description":"wrong app","message":"x"}`, "wrong app"},
		{"", "", jsonType, `{"x":1}`, `it has "x"`},
		{"", "", "text/plain", "The app may not use this scope.\n", `it says "The app may not use this scope."`},
		{"", "", "text/plain", "message=wrong+app", "it says message: wrong app"},
		{"", "", "text/plain", strings.Repeat("x", 50), ""},
		{"", "", "text/html", "<p>wrong app", ""},
		{"", "", "", "", ""},
		{"", "", "text/plain", "", ""},
		{"", "", "text/plain", " \r\n\t", ""},
	} {
		refusal := &oauth2.RetrieveError{
			ErrorCode: test.code, ErrorDescription: test.description, Body: []byte(test.body),
			Response: &http.Response{Header: http.Header{"Content-Type": {test.mediaType}}},
		}
		require.Equal(t, test.want, Explanation(refusal), test.body)
	}
	require.Empty(t, Explanation(&oauth2.RetrieveError{Body: []byte(`{"reason":"x"}`)}))
}

func TestP9_Encoding(t *testing.T) {
	for _, test := range []struct{ header, body, want string }{
		{"", "{}", ""},
		{"identity", "{}", ""},
		{"br", "x", "br"},
		{"Deflate", "x", "deflate"},
		{"", "\x1f\x8b\x08", "gzip"},
		{"", "\x28\xb5\x2f\xfd", "zstd"},
		{"x\ny", "", ""},
		{strings.Repeat("x", 30), "", ""},
	} {
		require.Equal(t, test.want, Encoding(http.Header{"Content-Encoding": {test.header}}, []byte(test.body)), "%q", test)
	}
}
