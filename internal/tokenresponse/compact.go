package tokenresponse

import (
	"bytes"
	"strings"
)

// A Compact is a token response in little memory: the text of the answer without the access
// token, which the caller keeps anyway. A map of its members takes five times as much.
type Compact struct {
	text string
	at   int32 // where the token was cut out of text; negative: it isn't written there as it is
	form bool
}

// Compact returns the compact form of r, which Parse has read from body.
func (r *Response) Compact(body []byte) Compact {
	text := string(body)
	at := strings.Index(text, r.AccessToken)
	if at >= 0 {
		text = string(bytes.Join([][]byte{body[:at], body[at+len(r.AccessToken):]}, nil))
	}
	return Compact{text, int32(at), r.Form} //nolint:gosec // No answer is as large as that.
}

// Response returns the response that c was made of. token is its access token.
func (c Compact) Response(token string) *Response {
	text := c.text
	if c.at >= 0 {
		text = text[:c.at] + token + text[c.at:]
	}
	r := new(Response)
	_ = r.parse([]byte(text), c.form, false) // It has been checked before.
	r.Share(token)
	return r
}

// Share makes r hold its access token as this text, which is the same: so a token that is
// longer than everything else is kept once.
func (r *Response) Share(token string) {
	r.AccessToken = token
	if raw, ok := r.Raw.(map[string]any); ok && raw["access_token"] == any(token) {
		raw["access_token"] = token
	}
}
