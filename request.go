package clientcredentials

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

const (
	// maxResponseBody bounds what is read of an answer, after decompression.
	maxResponseBody = 1 << 20

	// maxSeconds is the longest life that expires_in can give: 68 years.
	maxSeconds = math.MaxInt32
)

// A tokenRequest is what one acquisition of a token is made of: a checked copy
// of a Config, RFC 6749, Section 4.4.2.
type tokenRequest struct {
	client                 *http.Client
	url                    string
	endpoint               *url.URL // url, parsed
	issuer                 string
	clientID, clientSecret string
	clientAuth             ClientAuth // nil: by authStyle
	authStyle              oauth2.AuthStyle
	styles                 *authStyleCache
	form                   url.Values // without the client's credentials, made of scopes and params
	scopes                 []string
	params                 url.Values
	strict                 bool
	earlyRefresh           time.Duration
	retry                  RetryPolicy
	store                  *SharedStore // nil: none
	observer               *Observer

	// Of the attempts so far; used by one goroutine at a time.
	credential string      // Attempt.Credential of the last one
	refused    string      // Attempt.Credential of the one that the server has refused
	header     http.Header // that was sent, in a copy made by with

	certificate *tls.Certificate // that the client presents; nil: none

	dpop     crypto.Signer // that tokens are to be bound to; nil: none
	proofKey *jws.Key      // made of dpop
	nonces   *nonceCache
	nonce    string // in the proof of the last attempt
	newNonce bool   // whether its answer brought another
}

// with returns a copy of r for what has to do with one attempt: its form and
// header are those that were sent, credentials included.
func (r *tokenRequest) with(attempt *Attempt) *tokenRequest {
	sent := *r
	sent.form = attempt.Form
	sent.header = attempt.Header
	return &sent
}

// isFor reports whether a request made of c now would ask for the same as r, in the same
// name. It costs little: in an outage each call that uses a stale token asks.
func (r *tokenRequest) isFor(c *Config) bool {
	return r.url == c.TokenURL && r.clientID == c.ClientID && r.clientSecret == c.ClientSecret &&
		r.authStyle == c.AuthStyle && sameInterface(r.clientAuth, c.ClientAuth) && sameInterface(r.dpop, c.DPoP) &&
		slices.Equal(r.scopes, c.Scopes) && maps.EqualFunc(r.params, c.EndpointParams, slices.Equal)
}

// A tokenResponse is a successful answer, RFC 6749, Section 5.1.
type tokenResponse struct {
	members
	sent        time.Time     // just before the request was
	floor       time.Duration // how long its token is used at least, counted from sent
	attempts    int
	from        event.TokenFrom
	shared      *sharedVersion   // where it is in Config.Store; nil: it isn't
	leaseWait   time.Duration    // for another replica
	certificate *tls.Certificate // that the client has presented; nil: none
	proofKey    *jws.Key         // of the proof of possession; nil: none

	body      []byte // what members were read from, for a store
	mediaType string
}

// token returns a new token with what the response says.
//
// RFC 6749, Section 5.1, counts expires_in from when the response was
// generated. That moment is unknown: the one before sending is surely earlier.
func (r *tokenResponse) token() *oauth2.Token {
	token := &oauth2.Token{
		AccessToken:  r.accessToken,
		TokenType:    r.tokenType,
		RefreshToken: r.refreshToken,
		ExpiresIn:    r.expiresIn,
	}
	if r.expiresIn != 0 {
		token.Expiry = r.sent.Add(time.Duration(r.expiresIn) * time.Second)
	}
	return token.WithExtra(r.raw)
}

// send makes one attempt on the wire.
func (r *tokenRequest) send(ctx context.Context, style oauth2.AuthStyle) (*tokenResponse, error) {
	ctx, cancel := timeout(ctx, r.retry.AttemptTimeout, "an attempt")
	defer cancel()
	attempt, err := r.authenticated(ctx, style)
	if err != nil {
		return nil, err
	}
	if err := r.certify(ctx, attempt); err != nil {
		return nil, err
	}
	if err := r.prove(attempt); err != nil {
		return nil, err
	}
	if r.refused != "" && attempt.CredentialID == r.refused {
		return nil, errSameCredential
	}
	r.credential = attempt.CredentialID
	masked := r.with(attempt)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, strings.NewReader(attempt.Form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("oauth2: cannot fetch token: %w", err)
	}
	req.Header = attempt.Header
	if r.clientAuth != nil {
		req.GetBody = nil // An assertion is sent once.
	}

	sent := time.Now()
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, masked.withoutSecrets(err)
	}
	defer resp.Body.Close()
	r.adoptNonce(resp.Header)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBody+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errEndedEarly, masked.withoutSecrets(err))
	}
	parsed, err := masked.judge(resp, body)
	if err != nil {
		return nil, err
	}
	if parsed.refreshToken == "" {
		parsed.refreshToken = r.form.Get("refresh_token") // As upstream, for programs that override grant_type.
	}
	response := &tokenResponse{members: *parsed, sent: sent, floor: time.Since(sent) + minReuse, from: event.FromServer, certificate: r.certificate, proofKey: r.proofKey}
	if r.store != nil {
		response.body, response.mediaType = body, mediaTypeOf(resp)
	}
	return response, nil
}

func mediaTypeOf(resp *http.Response) string {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return mediaType
}

// judge decides whether an answer of the token endpoint is a token response and
// returns its members, or the error that it stands for.
func (r *tokenRequest) judge(resp *http.Response, body []byte) (*members, error) {
	mediaType := mediaTypeOf(resp)
	fault := func(prefix string, err error) error {
		return &ResponseError{StatusCode: resp.StatusCode, MediaType: r.masker(new(members))(mediaType, maxErrorText), Size: len(body), Err: err, prefix: prefix}
	}
	parsed, prefix, err := parseMembers(body, mediaType, r.strict)

	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		refusal := r.retrieveError(resp, body, parsed)
		if resp.StatusCode >= 300 && resp.StatusCode <= 399 && resp.Header.Get("Location") != "" {
			return nil, redirectError(resp, refusal)
		}
		return nil, refusal
	case len(body) > maxResponseBody:
		return nil, fault("oauth2: cannot fetch token", errors.New("the answer is larger than 1 MiB"))
	case parsed.errorCode != "":
		// RFC 6749, Section 5.2, wants status 400; some servers say 200.
		return nil, r.retrieveError(resp, body, parsed)
	case err != nil:
		return nil, fault(prefix, err)
	case parsed.accessToken == "":
		return nil, fault("oauth2: server response missing access_token", nil)
	case resp.StatusCode == http.StatusPartialContent:
		return nil, fault("oauth2: cannot fetch token", errors.New("the answer is a part of something larger"))
	}
	if err := parsed.check(r.strict, r.dpop != nil); err != nil {
		return nil, fault(prefix, err)
	}
	if r.strict && parsed.form && endsWithConnection(resp) {
		return nil, fault(prefix, errors.New("a form-encoded answer without Content-Length may have been cut"))
	}
	return parsed, nil
}

// endsWithConnection reports whether only the end of the connection tells the
// end of resp's body. JSON and gzip show by themselves that they were cut.
func endsWithConnection(resp *http.Response) bool {
	return resp.ProtoMajor < 2 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && !resp.Uncompressed
}

// members are those members of a token response, or of an error response, that
// the library knows: RFC 6749, Sections 5.1 and 5.2, and refresh_in, by which
// some servers say when to refresh.
type members struct {
	accessToken, tokenType, refreshToken  string
	errorCode, errorDescription, errorURI string
	expiresIn                             int64 // seconds; 0: the token doesn't expire
	refreshIn                             int64 // seconds; 0: not given

	raw  any  // map[string]any or url.Values: what Token.Extra looks into
	form bool // whether the answer was form-encoded
}

// parseMembers reads the body of an answer. Together with an error it returns
// what could be read, and the words that begin such an error's text.
//
// An answer may be JSON, or form-encoded when its media type says so; JSON under
// the media type of a form is recognised by its brace.
func parseMembers(body []byte, mediaType string, strict bool) (parsed *members, prefix string, err error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	isForm := mediaType == "application/x-www-form-urlencoded" || mediaType == "text/plain"
	parsed = new(members)
	if isForm && !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return parsed, "oauth2: cannot parse response", parsed.parseForm(body)
	}
	return parsed, "oauth2: cannot parse json", parsed.parseJSON(body, strict)
}

// text returns where the member of that name goes when it is text; else nil.
func (m *members) text(name string) *string {
	switch name {
	case "access_token":
		return &m.accessToken
	case "token_type":
		return &m.tokenType
	case "refresh_token":
		return &m.refreshToken
	case "error":
		return &m.errorCode
	case "error_description":
		return &m.errorDescription
	case "error_uri":
		return &m.errorURI
	}
	return nil
}

// seconds returns where the member of that name goes when it is a number of
// seconds; else nil.
func (m *members) seconds(name string) *int64 {
	switch name {
	case "expires_in":
		return &m.expiresIn
	case "refresh_in":
		return &m.refreshIn
	}
	return nil
}

func (m *members) known(name string) bool { return m.text(name) != nil || m.seconds(name) != nil }

// parseForm reads a form-encoded answer.
func (m *members) parseForm(body []byte) error {
	m.form = true
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return errors.New("the body is not form-encoded") // err quotes the body.
	}
	m.raw = values
	var faults []error
	for name, list := range values {
		if !m.known(name) {
			continue
		}
		if len(list) > 1 {
			faults = append(faults, fmt.Errorf("%s stands there more than once", name))
		}
		if text := m.text(name); text != nil {
			*text = list[0]
		} else if err := m.setSeconds(name, list[0]); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// parseJSON reads a JSON answer. Unlike encoding/json it takes a member by its
// exact name, and no member twice, so that what one reader of the answer sees is
// what every other sees.
func (m *members) parseJSON(body []byte, strict bool) error {
	var raw map[string]any
	// A number that float64 can't hold, in a member that nobody may ask for, is
	// an error for json too. What else there is it has read by then.
	if err := json.Unmarshal(body, &raw); err != nil && raw == nil {
		return describeJSON(body, err)
	}
	m.raw = raw

	exact := make(map[string]bool)                 // known names that stand there
	variants := make(map[string][]json.RawMessage) // by known name: what stands there in other letter case
	var faults []error
	for name, value := range membersOf(body) {
		if lower := asciiLower(name); !m.known(lower) {
			continue
		} else if lower != name {
			variants[lower] = append(variants[lower], value)
			continue
		}
		if exact[name] {
			faults = append(faults, fmt.Errorf("%s stands there more than once", name))
			continue
		}
		exact[name] = true
		faults = append(faults, m.setJSON(name, value))
	}
	for name, values := range variants {
		switch {
		case exact[name]:
			// The exact name counts; another is a member that isn't known, RFC 6749, Section 5.1.
		case strict:
			faults = append(faults, fmt.Errorf("%s is written in other letter case", name))
		case len(values) > 1:
			faults = append(faults, fmt.Errorf("%s stands there more than once", name))
		default:
			faults = append(faults, m.setJSON(name, values[0]))
		}
	}
	return errors.Join(faults...)
}

// membersOf returns the members of a JSON object, the syntax of which is right, as
// they stand there: the same name may come again.
func membersOf(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		decoder := json.NewDecoder(bytes.NewReader(object))
		_, _ = decoder.Token() // The brace, or null. The syntax is right: errors can't be.
		for decoder.More() {
			token, _ := decoder.Token()
			var value json.RawMessage
			_ = decoder.Decode(&value)
			name, _ := token.(string)
			if !yield(name, value) {
				return
			}
		}
	}
}

// setJSON stores a known member's value.
func (m *members) setJSON(name string, value json.RawMessage) error {
	if string(value) == "null" {
		return nil
	}
	if seconds := m.seconds(name); seconds != nil {
		text := string(value)
		if text[0] == '"' { // Some servers quote the number.
			_ = json.Unmarshal(value, &text)
		}
		return m.setSeconds(name, text)
	}
	if value[0] != '"' {
		return fmt.Errorf("%s is not a string", name)
	}
	if text, ok := m.raw.(map[string]any)[name].(string); ok {
		*m.text(name) = text // The same text, kept once.
		return nil
	}
	return json.Unmarshal(value, m.text(name)) // Its name is written in other letter case.
}

func (m *members) setSeconds(name, text string) error {
	seconds, err := parseSeconds(text)
	if err != nil && name == "refresh_in" {
		return nil // An extension: what can't be read isn't known, RFC 6749, Section 5.1.
	}
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	*m.seconds(name) = seconds
	return nil
}

// check reports what would make the token unfit for an Authorization header, or
// for a client that knows Bearer tokens only.
func (m *members) check(strict, dpop bool) error {
	// RFC 6749, Appendix A.12, allows printable ASCII. The space among it is not
	// in the grammar of a bearer token, RFC 6750, Section 2.1, and doesn't survive
	// at the end of a header field.
	for _, c := range []byte(m.accessToken) {
		if c <= ' ' || c > '~' {
			return errors.New("access_token contains a character that a token cannot have")
		}
	}
	for _, c := range []byte(m.tokenType) {
		if !isTokenChar(c) {
			return errors.New("token_type is not an authentication scheme's name")
		}
	}
	switch isDPoP := strings.EqualFold(m.tokenType, "DPoP"); {
	case isDPoP && !dpop:
		return errors.New("token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config.DPoP")
	case dpop && !isDPoP:
		// RFC 9449, Section 5: the token isn't bound, and whoever gets hold of it can use it.
		return errors.New("token_type is not DPoP: the server hasn't bound the token to the key")
	case strict && !dpop && m.tokenType != "" && !strings.EqualFold(m.tokenType, "Bearer"):
		// RFC 6749, Section 7.1.
		return errors.New("token_type is not Bearer")
	}
	return nil
}

// isTokenChar reports whether c may stand in an authentication scheme's name:
// tchar in RFC 9110, Section 5.6.2.
func isTokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// parseSeconds reads a number of seconds as it stands in JSON or in a form. The
// empty text is no number and no error. Fractions are dropped, except that what
// is more than zero stays so: zero says that a token doesn't expire. Numbers are
// clamped to plus and minus 68 years.
func parseSeconds(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	// What ParseFloat reads beyond decimal numbers: 0x1p3, 1_000, Inf, NaN.
	if strings.Trim(text, "+-.eE0123456789") != "" {
		return 0, errors.New("is not a number")
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("is not a number") // err quotes the text.
	}
	if number == 0 && strings.Trim(strings.Split(strings.ToLower(text), "e")[0], "+-.0") != "" {
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

// describeJSON says what is wrong with a body that isn't a JSON object, without
// quoting it.
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

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func cloneValues(values url.Values) url.Values {
	clone := make(url.Values, len(values))
	for name, list := range values {
		clone[name] = append([]string(nil), list...)
	}
	return clone
}

// basicCredentials returns the user-pass of RFC 7617, Section 2, in base64.
func basicCredentials(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}
