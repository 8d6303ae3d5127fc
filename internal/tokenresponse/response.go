// Package tokenresponse is the grammar of what a token endpoint answers: token responses
// and error responses, RFC 6749, Sections 5.1 and 5.2, in JSON and form-encoded.
package tokenresponse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

// maxSeconds is the longest life that expires_in can give: 68 years.
const maxSeconds = math.MaxInt32

// A Response has those members of a token response, or of an error response, that the
// library knows: RFC 6749, Sections 5.1 and 5.2, and refresh_in, in which some servers say
// when to refresh.
type Response struct {
	AccessToken, TokenType, RefreshToken  string
	ErrorCode, ErrorDescription, ErrorURI string
	ExpiresIn                             int64 // seconds; 0: the token doesn't expire
	RefreshIn                             int64 // seconds; 0: not given

	Raw  any  // map[string]any or url.Values: what Token.Extra looks into
	Form bool // the answer was form-encoded
}

// MediaType returns the media type of an answer, without parameters.
func MediaType(resp *http.Response) string {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return mediaType
}

// Parse reads the body of an answer. Together with an error it returns what could be read.
//
// An answer is JSON, or form-encoded if its media type says so. JSON under the media type
// of a form is recognised by its brace. In strict mode a member's name must be written
// exactly as in the RFC.
func Parse(body []byte, mediaType string, strict bool) (*Response, error) {
	r := new(Response)
	return r, r.parse(body, isForm(mediaType), strict)
}

func (r *Response) parse(body []byte, form, strict bool) error {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) // A byte order mark.
	if form && !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return r.parseForm(body)
	}
	return r.parseJSON(body, strict)
}

func isForm(mediaType string) bool {
	return mediaType == "application/x-www-form-urlencoded" || mediaType == "text/plain"
}

// text returns the field for the member with that name if it is a text, else nil.
func (r *Response) text(name string) *string {
	switch name {
	case "access_token":
		return &r.AccessToken
	case "token_type":
		return &r.TokenType
	case "refresh_token":
		return &r.RefreshToken
	case "error":
		return &r.ErrorCode
	case "error_description":
		return &r.ErrorDescription
	case "error_uri":
		return &r.ErrorURI
	}
	return nil
}

// seconds returns the field for the member with that name if it is a number of seconds,
// else nil.
func (r *Response) seconds(name string) *int64 {
	switch name {
	case "expires_in":
		return &r.ExpiresIn
	case "refresh_in":
		return &r.RefreshIn
	}
	return nil
}

func (r *Response) knows(name string) bool { return r.text(name) != nil || r.seconds(name) != nil }

func (r *Response) parseForm(body []byte) error {
	r.Form = true
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return errors.New("the body is not form-encoded") // err quotes the body.
	}
	r.Raw = values
	var faults []error
	for name, list := range values {
		if !r.knows(name) {
			continue
		}
		if text := r.text(name); text != nil {
			*text = list[0]
		} else if err := r.setSeconds(name, list[0]); err != nil {
			faults = append(faults, err)
		}
		if len(list) > 1 {
			faults = append(faults, r.duplicate(name))
		}
	}
	return errors.Join(faults...)
}

// duplicate returns the fault of a known member that appears more than once. An extension
// that can't be read is ignored instead, RFC 6749, Section 5.1.
func (r *Response) duplicate(name string) error {
	if name == "refresh_in" {
		r.RefreshIn = 0
		return nil
	}
	return fmt.Errorf("%s appears more than once", name)
}

// parseJSON takes a member only by its exact name, and only once, unlike encoding/json: so
// every reader of the answer sees the same values.
func (r *Response) parseJSON(body []byte, strict bool) error {
	var raw map[string]any
	if strictjson.IsObject(body) {
		raw = make(map[string]any)
	} else if err := json.Unmarshal(body, &raw); err != nil { // It would be null otherwise.
		return describeJSON(body, err)
	}
	r.Raw = raw

	exact := make([]string, 0, 8)             // the known names that appear
	var repeated []string                     // those that appear again
	var variants map[string][]json.RawMessage // by known name: values under the same name in another letter case
	var faults []error
	for name, value := range strictjson.Members(body) {
		raw[name] = strictjson.Value(value)
		lower := ascii.Lower(name)
		switch {
		case !r.knows(lower):
			continue
		case lower != name:
			if variants == nil {
				variants = make(map[string][]json.RawMessage)
			}
			variants[lower] = append(variants[lower], value)
			continue
		case slices.Contains(repeated, name):
			continue
		case slices.Contains(exact, name):
			repeated, faults = append(repeated, name), append(faults, r.duplicate(name))
			continue
		}
		exact = append(exact, name)
		if err := r.setJSON(name, value); err != nil {
			faults = append(faults, err)
		}
	}
	for name, values := range variants {
		switch {
		case slices.Contains(exact, name):
			// The exact name wins. The variant is an unknown member, RFC 6749, Section 5.1.
		case strict:
			faults = append(faults, fmt.Errorf("%s is written in other letter case", name))
		case len(values) > 1:
			faults = append(faults, r.duplicate(name))
		default:
			faults = append(faults, r.setJSON(name, values[0]))
		}
	}
	return errors.Join(faults...)
}

// setJSON stores the value of a known member.
func (r *Response) setJSON(name string, value json.RawMessage) error {
	if string(value) == "null" {
		return nil
	}
	if r.seconds(name) != nil {
		text := string(value)
		if text[0] == '"' { // Some servers quote the number.
			_ = json.Unmarshal(value, &text)
		}
		return r.setSeconds(name, text)
	}
	if value[0] != '"' {
		return fmt.Errorf("%s is not a string", name)
	}
	if text, ok := r.Raw.(map[string]any)[name].(string); ok {
		*r.text(name) = text // The same text, kept once.
		return nil
	}
	return json.Unmarshal(value, r.text(name)) // Its name is written in other letter case.
}

func (r *Response) setSeconds(name, text string) error {
	seconds, err := parseSeconds(text)
	if err != nil && name == "refresh_in" {
		return nil // It is ignored: see duplicate.
	}
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	*r.seconds(name) = seconds
	return nil
}

// b64token are the characters of a bearer token, RFC 6750, Section 2.1.
const b64token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"

// isUnsendable reports whether no header field can hold the character, RFC 9110, Section 5.5.
func isUnsendable(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// Scheme returns the authentication scheme to send the token with: what token_type says, as
// upstream writes it, or Bearer if that isn't the name of a scheme.
func (r *Response) Scheme() string {
	name := strings.TrimSpace(r.TokenType)
	if !challenge.IsScheme(name) {
		return "Bearer"
	}
	token := oauth2.Token{TokenType: name}
	return token.Type()
}

// Check reports why the token can't be used: it doesn't fit into an Authorization header,
// or its type isn't what the client can use. bound says that the client asked for a token
// bound to a key, RFC 9449.
func (r *Response) Check(strict, bound bool) error {
	switch scheme, isDPoP := r.Scheme(), ascii.EqualFold(r.Scheme(), "DPoP"); {
	case strings.ContainsFunc(r.AccessToken, isUnsendable):
		return errors.New("access_token contains a control character, which no header field can hold")
	case strings.ContainsFunc(r.TokenType, isUnsendable):
		return errors.New("token_type contains a control character, which no header field can hold")
	case !r.Form && strings.Contains(r.AccessToken, "\ufffd"):
		// JSON is UTF-8, RFC 8259, Section 8.1: the token that the server means is lost.
		return errors.New("access_token is not valid UTF-8")
	case strict && strings.Trim(strings.TrimRight(r.AccessToken, "="), b64token) != "":
		return errors.New("access_token contains a character that RFC 6750, Section 2.1, doesn't allow")
	case isDPoP && !bound:
		return errors.New("token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config.DPoP")
	case bound && !isDPoP:
		// RFC 9449, Section 5: the token isn't bound, and anybody who gets hold of it can
		// use it.
		return errors.New("token_type is not DPoP: the server hasn't bound the token to the key")
	case strict && !bound && (scheme != "Bearer" || r.TokenType != "" && !ascii.EqualFold(r.TokenType, scheme)):
		// RFC 6749, Section 7.1.
		return errors.New("token_type is not Bearer")
	}
	return nil
}

// IsAccessToken reports whether the token can be sent to an API. A token exchange may issue
// one that can't: then token_type is N_A, RFC 8693, Section 2.2.1.
func (r *Response) IsAccessToken() bool { return !ascii.EqualFold(r.TokenType, "N_A") }

// CheckExchange reports what else RFC 8693, Section 2.2.1, demands of the answer to a token
// exchange. requested is the requested_token_type; empty: the server chooses.
func (r *Response) CheckExchange(requested string) error {
	var issued string
	switch raw := r.Raw.(type) {
	case map[string]any:
		issued, _ = raw["issued_token_type"].(string)
	case url.Values:
		issued = raw.Get("issued_token_type")
	}
	switch {
	case issued == "":
		return errors.New("issued_token_type is missing, which RFC 8693, Section 2.2.1, requires")
	case requested != "" && issued != requested:
		return errors.New("issued_token_type is not the requested_token_type")
	}
	return nil
}

// parseSeconds reads a number of seconds from JSON or from a form. An empty text is 0, and
// not an error. Fractions are dropped, but a positive number never becomes 0, which would
// mean that the token doesn't expire. Numbers are clamped to 68 years in either direction.
func parseSeconds(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if number, err := strconv.ParseInt(text, 10, 64); err == nil { // Nearly always; ParseFloat takes much more stack.
		return min(max(number, -maxSeconds), maxSeconds), nil
	}
	// ParseFloat also reads texts that aren't decimal numbers: 0x1p3, 1_000, Inf, NaN.
	if strings.Trim(text, "+-.eE0123456789") != "" {
		return 0, errors.New("is not a number")
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("is not a number") // err quotes the text.
	}
	if number == 0 && strings.Trim(strings.Split(ascii.Lower(text), "e")[0], "+-.0") != "" {
		// Too close to zero for float64.
		number = math.SmallestNonzeroFloat64
		if text[0] == '-' {
			number = -number
		}
	}
	if 0 < number && number < 1 {
		return 1, nil
	}
	return int64(math.Floor(min(max(number, -maxSeconds), maxSeconds))), nil
}

// describeJSON says why a body isn't a JSON object, without quoting it.
func describeJSON(body []byte, err error) error {
	var syntax *json.SyntaxError
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return errors.New("the body is empty")
	case bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")):
		return errors.New("the body looks like HTML or XML; check that TokenURL is the token endpoint")
	case errors.As(err, &syntax):
		return fmt.Errorf("syntax error at byte %d", syntax.Offset)
	}
	return errors.New("the body is not an object")
}
