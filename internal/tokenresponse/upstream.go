package tokenresponse

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
)

// This file knows what golang.org/x/oauth2 says of an answer that it can't use: programs
// compare its texts. The text of an error of package json has the names of upstream's types
// in it, which is why the same names are used here.

type tokenJSON struct {
	AccessToken      string         `json:"access_token"`
	TokenType        string         `json:"token_type"`
	RefreshToken     string         `json:"refresh_token"`
	ExpiresIn        expirationTime `json:"expires_in"`
	ErrorCode        string         `json:"error"`
	ErrorDescription string         `json:"error_description"`
	ErrorURI         string         `json:"error_uri"`
}

type expirationTime int32

// UnmarshalJSON implements json.Unmarshaler.
func (e *expirationTime) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	i, err := n.Int64()
	*e = expirationTime(min(max(i, math.MinInt32), math.MaxInt32))
	return err
}

// UpstreamError returns the text of upstream's error for an answer whose status is
// success; empty: there would be none. Of upstream's texts about expires_in it has only the
// beginning, because they quote the value.
func UpstreamError(body []byte, mediaType string) string {
	const missing = "oauth2: server response missing access_token"
	body = body[:min(len(body), 1<<20)]
	if isForm(mediaType) {
		values, err := url.ParseQuery(string(body))
		switch {
		case err != nil:
			return "oauth2: cannot parse response: " + err.Error() // It quotes three characters at most.
		case values.Get("access_token") == "":
			return missing
		}
		return ""
	}
	var tj tokenJSON
	err := json.Unmarshal(body, &tj)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax), errors.As(err, &kind):
		return "oauth2: cannot parse json: " + strings.Replace(err.Error(), "tokenresponse.tokenJSON", "internal.tokenJSON", 1)
	case err != nil:
		return "oauth2: cannot parse json"
	case tj.AccessToken == "":
		return missing
	}
	return ""
}

// Encoding returns the name of the content coding that nobody has undone, RFC 9110,
// Section 8.4; empty: there is none. net/http undoes gzip if it has asked for it itself.
func Encoding(header http.Header, body []byte) string {
	name := ascii.Lower(header.Get("Content-Encoding"))
	switch {
	case bytes.HasPrefix(body, []byte("\x1f\x8b")):
		return "gzip"
	case bytes.HasPrefix(body, []byte("\x28\xb5\x2f\xfd")):
		return "zstd"
	case name == "identity" || len(name) > 20 || !challenge.IsScheme(name): // It is a token, too.
		return ""
	}
	return name
}
