package tokenresponse

import (
	"bytes"
	"net/url"
	"reflect"
	"slices"
)

// A Compact is a token response in little memory: the text of the answer without the access
// token, which the caller keeps anyway. A map of its members takes five times as much.
type Compact struct {
	text string // with an empty token, unless that can't be read
	form bool
}

// Compact returns the compact form of r, which Parse has read from body.
func (r *Response) Compact(body []byte) Compact {
	if at := bytes.Index(body, []byte(r.AccessToken)); at >= 0 {
		c := Compact{string(slices.Concat(body[:at], body[at+len(r.AccessToken):])), r.Form}
		if reflect.DeepEqual(c.Response(r.AccessToken).Raw, r.Raw) { // Otherwise it was cut out of something else.
			return c
		}
	}
	return Compact{string(body), r.Form}
}

// Response returns the response that c was made of. token is its access token.
func (c Compact) Response(token string) *Response {
	r := new(Response)
	_ = r.parse([]byte(c.text), c.form, false) // It has been checked before.
	r.Share(token)
	return r
}

// Share makes token the access token of r, and keeps its text once. token must be the access
// token that r has, or the one that Compact has cut out.
func (r *Response) Share(token string) {
	switch raw := r.Raw.(type) {
	case map[string]any:
		if raw["access_token"] == any(r.AccessToken) {
			raw["access_token"] = token
		}
	case url.Values:
		if list := raw["access_token"]; len(list) > 0 && list[0] == r.AccessToken {
			list[0] = token
		}
	}
	r.AccessToken = token
}
