package clientcredentials_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	upstream "golang.org/x/oauth2/clientcredentials"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// This file is the drop-in contract: a table of the behaviours that a program sees of
// golang.org/x/oauth2/clientcredentials and of this package. Each row runs against both.
// docs/compatibility.md lists the same rows, as TestCompatibilityDocument checks.

// A row is one behaviour. The transcripts list in order what the servers received and
// what the caller got, joined by "; ". For example, "header; token at-1 1h0m0s" is a
// token request with the credentials in its header, and the token at-1, which expires in
// an hour. The comments of describe, trial.got and trial.failed explain the other words.
type row struct {
	name   string
	once   bool                     // sets Retry.MaxAttempts to 1 here; retries have their own row
	conf   func(c *upstream.Config) // changes the fields from those of run
	before []answer                 // of the token endpoint, to its first requests
	answer answer                   // to all further requests
	do     func(tr *trial)          // nil: Config.Token, once

	upstream, here string // the transcripts
	reason         string // why they differ; empty: they don't
	older          string // the transcript of x/oauth2 before v0.30.0, if that behaves differently
}

// before030 gives the transcript of x/oauth2 before v0.30.0. go.mod has the oldest version that
// we support, and `make test-newest` tests with the newest.
func (r row) before030(transcript string) row {
	r.older = transcript
	return r
}

// same completes a row in which both packages behave alike.
func (r row) same(transcript string) row {
	r.upstream, r.here = transcript, transcript
	return r
}

// differs completes a row in which the packages behave differently for a reason.
func (r row) differs(upstream, here, reason string) row {
	r.upstream, r.here, r.reason = upstream, here, reason
	return r
}

// olderJSON gives errors of encoding/json, which upstream passes on, the wording that
// they had before Go 1.27.
var olderJSON = strings.NewReplacer(
	`json: cannot unmarshal string "" into Go value of type json.Number: invalid syntax`, `json: invalid number literal, trying to unmarshal "\"\"" into Number`,
	`json: cannot unmarshal string "at-2" into Go value of type json.Number: invalid syntax`, `json: invalid number literal, trying to unmarshal "\"at-2\"" into Number`,
	`invalid character '\ufeff'`, `invalid character 'ï'`,
)

func TestDropIn(t *testing.T) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			theirs, ours := run(t, row, newUpstream), run(t, row, newHere)
			require.Equal(t, row.here, strings.Join(ours.transcript, "; "), "here")
			transcript := olderJSON.Replace(strings.Join(theirs.transcript, "; "))
			if row.older != "" && transcript == row.older {
				return
			}
			require.Equal(t, row.upstream, transcript, "upstream")

			// The requests are the same byte for byte. Even where something differs,
			// every token request is one that upstream sends too.
			require.Subset(t, theirs.tokenRequests, ours.tokenRequests)
			if row.reason == "" {
				require.Equal(t, theirs.tokenRequests, ours.tokenRequests)
				require.Equal(t, theirs.apiRequests, ours.apiRequests)
			}
		})
	}
}

// TestCompatibilityDocument checks that docs/compatibility.md names each row once, in the
// right section, and gives the reason for each difference.
func TestCompatibilityDocument(t *testing.T) {
	document, err := os.ReadFile("docs/compatibility.md")
	require.NoError(t, err)
	same, differences, found := strings.Cut(string(document), "\n## Differences\n")
	require.True(t, found)

	documented, tested := make(map[string]string), make(map[string]string) // reasons by name; empty: the same
	add := func(reasons map[string]string, name, reason string) {
		require.NotContains(t, reasons, name)
		reasons[name] = reason
	}
	for _, span := range regexp.MustCompile("`([a-z][a-z0-9_]+)`").FindAllStringSubmatch(same, -1) {
		add(documented, span[1], "")
	}
	for _, line := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| .+ \\| .+ \\| (.+) \\|$").FindAllStringSubmatch(differences, -1) {
		add(documented, line[1], line[2])
	}
	for _, row := range rows {
		add(tested, row.name, row.reason)
	}
	require.Equal(t, tested, documented)
}

// A config has the methods that the Configs of both packages have.
type config interface {
	Client(ctx context.Context) *http.Client
	Token(ctx context.Context) (*oauth2.Token, error)
	TokenSource(ctx context.Context) oauth2.TokenSource
}

// A subject is the Config of one of the packages.
type subject struct {
	config
	assign func(change func(c *upstream.Config)) // changes fields
	copied func() config                         // returns a copy of the struct
}

func newUpstream(fields upstream.Config, _ bool) subject {
	c := &fields
	return subject{c, func(change func(*upstream.Config)) { change(c) }, func() config { clone := *c; return &clone }}
}

func newHere(fields upstream.Config, once bool) subject {
	c := new(clientcredentials.Config)
	if once {
		c.Retry.MaxAttempts = 1
	}
	assign := func(change func(*upstream.Config)) {
		change(&fields)
		c.ClientID, c.ClientSecret, c.TokenURL = fields.ClientID, fields.ClientSecret, fields.TokenURL
		c.Scopes, c.EndpointParams, c.AuthStyle = fields.Scopes, fields.EndpointParams, fields.AuthStyle
	}
	assign(func(*upstream.Config) {})
	return subject{c, assign, func() config { clone := *c; return &clone }}
}

// A trial is one run of a row, against one of the packages, in a bubble of
// testing/synctest.
type trial struct {
	*testing.T
	*network
	subject
	ctx   context.Context // has http under oauth2.HTTPClient
	http  *http.Client    // leads into the network
	start time.Time
}

func run(t *testing.T, row row, newSubject func(fields upstream.Config, once bool) subject) *network {
	n := &network{before: row.before, answer: row.answer}
	testkit.Synctest(t, func(t *testing.T) {
		fields := upstream.Config{ClientID: "id", ClientSecret: "secret", TokenURL: tokenURL, AuthStyle: oauth2.AuthStyleInHeader}
		if row.conf != nil {
			row.conf(&fields)
		}
		client := &http.Client{Transport: n.dialer()}
		tr := &trial{
			T:       t,
			network: n,
			subject: newSubject(fields, row.once),
			ctx:     context.WithValue(t.Context(), oauth2.HTTPClient, client),
			http:    client,
			start:   time.Now(),
		}
		do := row.do
		if do == nil {
			do = tokens(1)
		}
		func() {
			defer func() {
				if recover() != nil {
					tr.note("panic")
				}
			}()
			do(tr)
		}()
		time.Sleep(2 * time.Hour) // Requests that nobody waits for end.
	})
	return n
}

// got notes a token: its AccessToken, its TokenType unless that is Bearer, its
// RefreshToken, and when it expires, counted from the start. It notes an error as failed
// does.
func (tr *trial) got(token *oauth2.Token, err error) {
	if err != nil {
		tr.failed(err)
		return
	}
	words := []string{"token", short(token.AccessToken)}
	if token.TokenType != "Bearer" {
		words = append(words, strconv.Quote(token.TokenType))
	}
	if token.RefreshToken != "" {
		words = append(words, "refresh="+token.RefreshToken)
	}
	if !token.Expiry.IsZero() {
		words = append(words, token.Expiry.Sub(tr.start).String())
	}
	tr.note("%s", strings.Join(words, " "))
}

// failed notes the text of an error, and its type if programs look for that. The text of
// a RetrieveError has either the ErrorCode, ErrorDescription and ErrorURI, or the Body. If
// it has the ErrorCode, the note ends with the Body.
func (tr *trial) failed(err error) {
	switch e := err.(type) { //nolint:errorlint // The concrete type is the contract.
	case *oauth2.RetrieveError:
		body := ""
		if e.ErrorCode != "" {
			body = " " + string(e.Body)
		}
		tr.note("refused %d: %s%s", e.Response.StatusCode, short(e.Error()), short(body))
	case *url.Error:
		tr.note("url.Error: %v", err)
	default:
		tr.note("error: %v", err)
	}
}

// token requests a token that there must be.
func (tr *trial) token() *oauth2.Token {
	token, err := tr.Token(tr.ctx)
	require.NoError(tr, err)
	return token
}

// refusal requests a token that the server must refuse.
func (tr *trial) refusal() *oauth2.RetrieveError {
	_, err := tr.Token(tr.ctx)
	refusal, ok := err.(*oauth2.RetrieveError)
	require.True(tr, ok, "%v", err)
	return refusal
}

// tokens requests n tokens.
func tokens(n int) func(*trial) {
	return func(tr *trial) {
		for range n {
			tr.got(tr.Token(tr.ctx))
		}
	}
}

// asksWithin requests a token with a context that ends after d, and notes how long that
// took.
func asksWithin(d time.Duration) func(*trial) {
	return func(tr *trial) {
		ctx, cancel := context.WithTimeout(tr.ctx, d)
		defer cancel()
		tr.got(tr.Token(ctx))
		tr.note("after %v", time.Since(tr.start))
	}
}

// asks requests a token for each of the answers. It notes only whether it got a token, a
// refusal or another error.
func asks(answers ...answer) func(*trial) {
	return func(tr *trial) {
		for _, a := range answers {
			tr.answers(a)
			token, err := tr.Token(tr.ctx)
			var refusal *oauth2.RetrieveError
			switch {
			case err == nil:
				tr.got(token, nil)
			case errors.As(err, &refusal):
				tr.note("refused %d", refusal.Response.StatusCode)
			default:
				tr.note("error")
			}
		}
	}
}

func source(tr *trial) oauth2.TokenSource { return tr.TokenSource(tr.ctx) }
func client(tr *trial) *http.Client       { return tr.Client(tr.ctx) }

// transport returns the Transport of a client of Config.Client.
func (tr *trial) transport(client *http.Client) *oauth2.Transport {
	transport, ok := client.Transport.(*oauth2.Transport)
	require.True(tr, ok)
	return transport
}

// withMargin returns a source whose tokens are replaced 20 minutes before they expire.
func withMargin(tr *trial) oauth2.TokenSource {
	return oauth2.ReuseTokenSourceWithExpiry(nil, source(tr), 20*time.Minute)
}

// asksSource asks one source for a token at each of the times, counted from the start.
func asksSource(source func(*trial) oauth2.TokenSource, times ...time.Duration) func(*trial) {
	return func(tr *trial) {
		source := source(tr)
		for _, d := range times {
			tr.after(d)
			token, err := source.Token()
			synctest.Wait() // The network notes a refresh in the background first.
			tr.got(token, err)
		}
	}
}

// asksClient calls an API with one client at each of the times, counted from the start.
func asksClient(client func(*trial) *http.Client, times ...time.Duration) func(*trial) {
	return func(tr *trial) {
		client := client(tr)
		for _, d := range times {
			tr.after(d)
			tr.get(client, apiURL)
		}
	}
}

// get sends a request to an API. It notes only errors, because the network notes what
// arrives.
func (tr *trial) get(client *http.Client, address string) {
	resp, err := client.Get(address)
	if err != nil {
		tr.failed(err)
		return
	}
	resp.Body.Close()
}

// request returns a request to an API.
func (tr *trial) request(ctx context.Context, method, address, body string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	require.NoError(tr, err)
	return req
}

// asksStatus sends requests to paths of the API and notes the status of each answer.
func asksStatus(paths ...string) func(*trial) {
	return func(tr *trial) {
		client := tr.Client(tr.ctx)
		for _, path := range paths {
			resp, err := client.Get(apiURL + path)
			require.NoError(tr, err)
			resp.Body.Close()
			tr.note("%d", resp.StatusCode)
		}
	}
}

// after waits until d has passed since the start and background refreshes have finished.
func (tr *trial) after(d time.Duration) {
	time.Sleep(time.Until(tr.start.Add(d)))
	synctest.Wait()
}

// short abbreviates a very long text.
func short(s string) string {
	if len(s) <= 200 {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", s[:12], len(s))
}

const (
	tokenURL = "https://as.test/token"
	apiURL   = "https://api.test/"
	formType = "application/x-www-form-urlencoded"
	bearer   = `{"access_token":"at","token_type":"Bearer"}`
)

// A network has a token endpoint and any number of APIs. Its clients use a real
// http.Transport, whose connections are pipes.
type network struct {
	mu            sync.Mutex // protects what follows
	before        []answer
	answer        answer
	transcript    []string
	tokenRequests []string // as they arrived
	accepts       []string // the Accept of each
	apiRequests   []string
}

// An answer of the token endpoint. The zero value is a token that expires in an hour.
type answer struct {
	status    int // 0: 200
	mediaType string
	body      string   // "#" in it is the number of the request
	header    []string // further lines of the header
	unframed  bool     // no Content-Length
	delay     time.Duration
	none      bool // the connection is closed instead
}

// says answers with JSON.
func says(body string) answer { return answer{mediaType: "application/json", body: body} }

// expires answers with a token that has this expires_in.
func expires(in string) answer {
	return says(`{"access_token":"at","token_type":"Bearer","expires_in":` + in + `}`)
}

// form answers with a form.
func form(body string) answer { return answer{mediaType: formType, body: body} }

// refuses answers with an error code.
func refuses(status int, code string) answer {
	return answer{status: status, mediaType: "application/json", body: `{"error":"` + code + `"}`}
}

// fails answers with an empty page.
func fails(status int) answer { return answer{status: status, mediaType: "text/html"} }

// redirects answers with a Location.
func redirects(status int, target string) answer {
	return answer{status: status, header: []string{"Location: " + target}}
}

func (a answer) write(w io.Writer, number int) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.status == http.StatusOK && a.mediaType == "" && a.body == "" {
		a.mediaType, a.body = "application/json", `{"access_token":"at-#","token_type":"Bearer","expires_in":3600}`
	}
	body := strings.ReplaceAll(a.body, "#", strconv.Itoa(number))
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nConnection: close\r\n", a.status, http.StatusText(a.status))
	if a.mediaType != "" {
		fmt.Fprintf(w, "Content-Type: %s\r\n", a.mediaType)
	}
	if !a.unframed {
		fmt.Fprintf(w, "Content-Length: %d\r\n", len(body))
	}
	for _, line := range a.header {
		fmt.Fprintf(w, "%s\r\n", line)
	}
	fmt.Fprintf(w, "\r\n%s", body)
}

func (n *network) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.transcript = append(n.transcript, fmt.Sprintf(format, args...))
}

// dialer returns a Transport that leads into n.
func (n *network) dialer() *http.Transport {
	dial := func(scheme string) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go n.serve(scheme, server)
			return client, nil
		}
	}
	return &http.Transport{DialContext: dial("http"), DialTLSContext: dial("https")}
}

// serve answers one request. Every API does one of these:
//
//   - redirects to the parameter "to", if there is one,
//   - answers 401 at /revoked to the first token, and says why,
//   - answers 401 at /unauthorized to every token, without a reason,
//   - answers with a token, as a hostile server would if a token request reached it.
func (n *network) serve(scheme string, conn net.Conn) {
	defer conn.Close()
	var raw bytes.Buffer
	req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &raw)))
	if err != nil {
		return
	}
	body, _ := io.ReadAll(req.Body)
	n.note("%s", describe(scheme, req, string(body)))

	n.mu.Lock()
	a := n.answer
	var number int
	if req.Host == "as.test" && req.URL.Path == "/token" {
		if len(n.before) > 0 {
			a, n.before = n.before[0], n.before[1:]
		}
		// Accept is a difference with a row of its own, P10_accept.
		n.tokenRequests = append(n.tokenRequests, strings.Replace(raw.String(), "Accept: application/json\r\n", "", 1))
		n.accepts = append(n.accepts, req.Header.Get("Accept"))
		number = len(n.tokenRequests)
	} else {
		a = says(`{"access_token":"hostile"}`)
		if to := req.URL.Query().Get("to"); to != "" {
			a = redirects(http.StatusFound, to)
		}
		switch {
		case req.URL.Path == "/revoked" && req.Header.Get("Authorization") == "Bearer at-1":
			a = answer{status: http.StatusUnauthorized, header: []string{`WWW-Authenticate: Bearer error="invalid_token"`}}
		case req.URL.Path == "/unauthorized":
			a = answer{status: http.StatusUnauthorized}
		}
		n.apiRequests = append(n.apiRequests, raw.String())
	}
	n.mu.Unlock()

	time.Sleep(a.delay)
	if !a.none {
		a.write(conn, number)
	}
}

// describe puts a request into words. For a token request these are where the credentials
// were (header, params or nothing), the query, and the credentials and parameters unless
// they are those of the simplest configuration. For another request these are the method,
// the URL without its query, and the Authorization.
func describe(scheme string, req *http.Request, body string) string {
	parameters, _ := url.ParseQuery(body)
	if req.Host != "as.test" || req.URL.Path != "/token" {
		words := []string{req.Method, scheme + "://" + req.Host + req.URL.Path}
		if authorization := req.Header.Get("Authorization"); authorization != "" {
			words = append(words, authorization)
		}
		if parameters.Has("client_secret") {
			words = append(words, "and the secret")
		}
		return strings.Join(words, " ")
	}
	words := []string{"nothing"}
	credentials := "id:secret"
	if encoded, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Basic "); ok {
		words[0] = "header"
		decoded, _ := base64.StdEncoding.DecodeString(encoded)
		credentials = string(decoded)
	} else if parameters.Has("client_id") || parameters.Has("client_secret") {
		words[0] = "params"
		credentials = parameters.Get("client_id") + ":" + parameters.Get("client_secret")
		parameters.Del("client_id")
		parameters.Del("client_secret")
	}
	if credentials != "id:secret" {
		words = append(words, credentials)
	}
	if slices.Equal(parameters["grant_type"], []string{"client_credentials"}) {
		parameters.Del("grant_type")
	}
	if len(parameters) > 0 {
		words = append(words, parameters.Encode())
	}
	if req.URL.RawQuery != "" {
		words = append(words, "?"+req.URL.RawQuery)
	}
	return strings.Join(words, " ")
}

// A roundTripper is a function that is an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answers sets the answer of the token endpoint from now on.
func (n *network) answers(a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = a
}

func autoDetect(c *upstream.Config) { c.AuthStyle = oauth2.AuthStyleAutoDetect }
func inParams(c *upstream.Config)   { c.AuthStyle = oauth2.AuthStyleInParams }

// follows sends a request to the first origin, which redirects to the next one, and so on.
func follows(first string, origins ...string) func(*trial) {
	address := ""
	for _, origin := range slices.Backward(append([]string{first}, origins...)) {
		if address != "" {
			address = "?to=" + url.QueryEscape(address)
		}
		address = origin + "/" + address
	}
	return func(tr *trial) { tr.get(tr.Client(tr.ctx), address) }
}

func withTokenURL(address string) func(*upstream.Config) {
	return func(c *upstream.Config) { c.TokenURL = address }
}

func withParams(params url.Values) func(*upstream.Config) {
	return func(c *upstream.Config) { c.EndpointParams = params }
}

var rows = slices.Concat(requestRows, styleRows, responseRows, errorRows, cacheRows, clientRows, misuseRows)

// wire requests a token and notes the bytes of the request.
func wire(tr *trial) {
	tr.got(tr.Token(tr.ctx))
	tr.note("%s", tr.tokenRequests[0])
}

// Token requests.
var requestRows = []row{
	row{name: "basic_bytes_on_the_wire", do: wire}.same(
		"header; token at-1 1h0m0s; POST /token HTTP/1.1\r\nHost: as.test\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 29\r\n" +
			"Authorization: Basic aWQ6c2VjcmV0\r\nContent-Type: application/x-www-form-urlencoded\r\nAccept-Encoding: gzip\r\n\r\ngrant_type=client_credentials"),
	row{name: "post_bytes_on_the_wire", conf: inParams, do: wire}.same(
		"params; token at-1 1h0m0s; POST /token HTTP/1.1\r\nHost: as.test\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 63\r\n" +
			"Content-Type: application/x-www-form-urlencoded\r\nAccept-Encoding: gzip\r\n\r\nclient_id=id&client_secret=secret&grant_type=client_credentials"),
	row{name: "P10_accept", do: func(tr *trial) {
		tr.token()
		tr.note("%q", tr.accepts[0])
	}}.differs(
		`header; ""`, `header; "application/json"`,
		"RFC 6749, Section 5.1, has JSON. Some servers answer 406, or with XML, to a request that doesn't ask for it."),
	row{name: "basic_form_encodes_id_and_secret", conf: func(c *upstream.Config) { c.ClientID, c.ClientSecret = "i d:ü", "s+e%&=/:" }}.same(
		"header i+d%3A%C3%BC:s%2Be%25%26%3D%2F%3A; token at-1 1h0m0s"),
	row{name: "post_special_characters", conf: func(c *upstream.Config) { inParams(c); c.ClientID, c.ClientSecret = "i d:ü", "s+e%&=/:" }}.same(
		"params i d:ü:s+e%&=/:; token at-1 1h0m0s"),
	row{name: "post_omits_an_empty_secret", conf: func(c *upstream.Config) { inParams(c); c.ClientSecret = "" }, do: wire}.same(
		"params id:; token at-1 1h0m0s; POST /token HTTP/1.1\r\nHost: as.test\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 42\r\n" +
			"Content-Type: application/x-www-form-urlencoded\r\nAccept-Encoding: gzip\r\n\r\nclient_id=id&grant_type=client_credentials"),
	row{name: "unknown_auth_style_sends_no_credentials", conf: func(c *upstream.Config) { c.AuthStyle = 7 }}.same("nothing; token at-1 1h0m0s"),
	row{name: "scopes_are_joined_by_spaces", conf: func(c *upstream.Config) { c.Scopes = []string{"b", "a", "a"} }}.same("header scope=b+a+a; token at-1 1h0m0s"),
	row{name: "endpoint_params_multi_valued", conf: withParams(url.Values{"resource": {"https://b", "https://a"}, "audience": {"x y"}, "none": nil})}.same(
		"header audience=x+y&resource=https%3A%2F%2Fb&resource=https%3A%2F%2Fa; token at-1 1h0m0s"),
	row{name: "endpoint_params_may_override_grant_type", conf: withParams(url.Values{"grant_type": {"password"}})}.same(
		"header grant_type=password; token at-1 1h0m0s"),
	row{name: "endpoint_params_may_remove_grant_type", conf: withParams(url.Values{"grant_type": {}, "x": {"y"}})}.same("header x=y; token at-1 1h0m0s"),
	row{name: "endpoint_params_may_not_override_scope", conf: func(c *upstream.Config) { c.Scopes, c.EndpointParams = []string{"a"}, url.Values{"scope": {"b"}} }}.same(
		`error: oauth2: cannot overwrite parameter "scope"`),
	row{name: "endpoint_params_may_hold_scope_without_scopes", conf: withParams(url.Values{"scope": {"b"}})}.same("header scope=b; token at-1 1h0m0s"),
	row{name: "endpoint_params_client_id_beside_basic", conf: withParams(url.Values{"client_id": {"other"}})}.same("header client_id=other; token at-1 1h0m0s"),
	row{name: "endpoint_params_client_id_is_overridden_in_post", conf: func(c *upstream.Config) { inParams(c); c.EndpointParams = url.Values{"client_id": {"other"}} }}.same(
		"params; token at-1 1h0m0s"),
	row{name: "endpoint_params_refresh_token_is_kept_in_the_token", conf: withParams(url.Values{"refresh_token": {"rt"}})}.same(
		"header refresh_token=rt; token at-1 refresh=rt 1h0m0s"),
	row{name: "endpoint_params_are_left_alone", conf: func(c *upstream.Config) { inParams(c); c.EndpointParams = url.Values{"a": {"b"}} }, do: func(tr *trial) {
		tr.got(tr.Token(tr.ctx))
		tr.assign(func(c *upstream.Config) { tr.note("%v", c.EndpointParams) })
	}}.same("params a=b; token at-1 1h0m0s; map[a:[b]]"),
	row{name: "query_of_token_url_is_kept", conf: withTokenURL(tokenURL + "?a=b&a=%20")}.same("header ?a=b&a=%20; token at-1 1h0m0s"),
	row{name: "context_client_sends_token_requests", do: func(tr *trial) {
		jar, err := cookiejar.New(nil)
		require.NoError(tr, err)
		tr.http.Jar = jar
		tr.answers(answer{header: []string{"Set-Cookie: a=b"}})
		tokens(2)(tr)
		tr.note("%t", strings.Contains(tr.tokenRequests[1], "Cookie: a=b"))
	}}.same("header; token at-1 1h0m0s; header; token at-2 1h0m0s; true"),
	row{name: "construction_context_values_reach_the_token_request", do: func(tr *trial) {
		type key struct{}
		base := tr.http.Transport
		tr.http.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			tr.note("%v", req.Context().Value(key{}))
			return base.RoundTrip(req)
		})
		tr.got(tr.TokenSource(context.WithValue(tr.ctx, key{}, "value")).Token())
	}}.same("value; header; token at-1 1h0m0s"),
	row{name: "context_client_timeout_bounds_token_requests", once: true, answer: answer{delay: time.Minute}, do: func(tr *trial) {
		tr.http.Timeout = time.Second
		asksWithin(time.Hour)(tr)
	}}.same(`header; url.Error: Post "https://as.test/token": context deadline exceeded; after 1s`),
	row{name: "context_bounds_token", answer: answer{delay: time.Minute}, do: asksWithin(time.Second)}.same(
		`header; url.Error: Post "https://as.test/token": context deadline exceeded; after 1s`),
	row{name: "F14_server_never_answers", once: true, answer: answer{delay: time.Hour}, do: asksWithin(10 * time.Minute)}.differs(
		`header; url.Error: Post "https://as.test/token": context deadline exceeded; after 10m0s`,
		`header; url.Error: Post "https://as.test/token": oauth2: cannot fetch token: an attempt took longer than 10s: context deadline exceeded; after 10s`,
		"A server that hangs must not hang its clients: an attempt takes at most 10 seconds, and all attempts together at most 30."),
	row{name: "F7_failures_are_tried_again", before: []answer{fails(503), fails(503)}, do: func(tr *trial) {
		_, err := tr.Token(tr.ctx)
		tr.note("%t", err == nil)
	}}.differs("header; false", "header; header; header; true",
		"Network errors, timeouts and answers about load or the health of the server often pass by themselves. With Retry.MaxAttempts 1 a failure is final, as it is upstream."),
}

// Finding out the AuthStyle.
var styleRows = []row{
	row{name: "auto_detect_header_accepted", conf: autoDetect, do: tokens(2)}.same("header; token at-1 1h0m0s; header; token at-2 1h0m0s"),
	row{name: "auto_detect_header_rejected", conf: autoDetect, do: func(tr *trial) {
		for _, status := range []int{400, 403, 500} {
			tr.assign(func(c *upstream.Config) { c.ClientID = strconv.Itoa(status) })
			tr.before = []answer{fails(status)}
			tokens(2)(tr) // The second time, the style is known.
		}
	}}.same(
		"header 400:secret; params 400:secret; token at-2 1h0m0s; params 400:secret; token at-3 1h0m0s; " +
			"header 403:secret; params 403:secret; token at-5 1h0m0s; params 403:secret; token at-6 1h0m0s; " +
			"header 500:secret; params 500:secret; token at-8 1h0m0s; params 500:secret; token at-9 1h0m0s").before030("header 400:secret; params 400:secret; token at-2 1h0m0s; params 400:secret; token at-3 1h0m0s; " +
		"params 403:secret; refused 403: oauth2: cannot fetch token: 403 Forbidden\nResponse: ; params 403:secret; token at-5 1h0m0s; " +
		"params 500:secret; refused 500: oauth2: cannot fetch token: 500 Internal Server Error\nResponse: ; params 500:secret; token at-7 1h0m0s"),
	row{name: "auto_detect_header_rejected_with_status_200", conf: autoDetect, before: []answer{refuses(200, "invalid_client")}}.same(
		"header; params; token at-2 1h0m0s"),
	row{name: "auto_detect_is_shared_with_copies_made_after_use", conf: autoDetect, before: []answer{fails(401)}, do: func(tr *trial) {
		tr.got(tr.Token(tr.ctx))
		tr.got(tr.copied().Token(tr.ctx))
	}}.same("header; params; token at-2 1h0m0s; params; token at-3 1h0m0s"),
	row{name: "auto_detect_is_not_shared_with_copies_made_before_use", conf: autoDetect, before: []answer{fails(401), {}, fails(401)}, do: func(tr *trial) {
		clone := tr.copied()
		tr.got(tr.Token(tr.ctx))
		tr.got(clone.Token(tr.ctx))
	}}.same("header; params; token at-2 1h0m0s; header; params; token at-4 1h0m0s"),
	row{name: "auto_detect_remembers_no_failure", conf: autoDetect, answer: refuses(401, "invalid_client"), do: tokens(2)}.same(
		`header; params; refused 401: oauth2: "invalid_client" {"error":"invalid_client"}; ` +
			`header; params; refused 401: oauth2: "invalid_client" {"error":"invalid_client"}`),
	row{name: "auto_detect_is_for_one_token_url_and_client_id", conf: autoDetect, before: []answer{fails(401)}, do: func(tr *trial) {
		tr.got(tr.Token(tr.ctx))
		tr.assign(func(c *upstream.Config) { c.ClientSecret = "new" })
		tr.got(tr.Token(tr.ctx))
		tr.assign(func(c *upstream.Config) { c.TokenURL += "?a" })
		tr.got(tr.Token(tr.ctx))
	}}.same("header; params; token at-2 1h0m0s; params id:new; token at-3 1h0m0s; header id:new ?a; token at-4 1h0m0s"),
	row{name: "F8_probe_under_load", once: true, conf: autoDetect, do: asks(fails(408), fails(429), fails(502), fails(503), fails(504))}.differs(
		"header; params; refused 408; header; params; refused 429; header; params; refused 502; header; params; refused 503; header; params; refused 504",
		"header; refused 408; header; refused 429; header; refused 502; header; refused 503; header; refused 504",
		"A server that is overloaded or unreachable hasn't rejected the form of the credentials. A second request would double its load and show the secret once more."),
	row{name: "F8_probe_after_network_error", once: true, conf: autoDetect, answer: answer{none: true}}.differs(
		`header; params; url.Error: Post "https://as.test/token": EOF`, `header; url.Error: Post "https://as.test/token": EOF`,
		"There was no answer, so nothing was rejected."),
	row{name: "F8_probe_after_other_faults", conf: autoDetect, do: asks(refuses(400, "invalid_scope"), refuses(400, "unsupported_grant_type"), fails(405))}.differs(
		"header; params; refused 400; header; params; refused 400; header; params; refused 405",
		"header; refused 400; header; refused 400; header; refused 405",
		"These answers are not about the credentials."),
	row{name: "F8_probe_after_unusable_answer", conf: autoDetect, do: asks(answer{mediaType: "text/html", body: "<html>"})}.differs(
		"header; params; error", "header; error",
		"The address isn't that of a token endpoint, or something in between answers, so a second request would get the same answer."),
	row{name: "auto_detect_header_rejected_without_an_error", conf: autoDetect, do: asks(says(`{"ret":7,"reason":"unknown app"}`))}.same(
		"header; params; error"),
	row{name: "F30_the_refusal_that_says_most", conf: autoDetect, before: []answer{refuses(401, "invalid_client")}, answer: refuses(400, "invalid_request"), do: func(tr *trial) { tr.note("%s", tr.refusal().ErrorCode) }}.differs(
		"header; params; invalid_request", "header; params; invalid_client",
		"Of two refusals the caller gets the one that says more about what the user can change: not that the form was wrong, but that the secret was."),
	row{name: "F8_style_remembered_by_accident", once: true, conf: autoDetect, before: []answer{fails(503)}, do: tokens(3)}.differs(
		"header; params; token at-2 1h0m0s; params; token at-3 1h0m0s; params; token at-4 1h0m0s",
		"header; refused 503: oauth2: cannot fetch token: 503 Service Unavailable\nResponse: ; header; token at-2 1h0m0s; header; token at-3 1h0m0s",
		"After one overload, upstream sends the secret in the body until the process ends."),
	row{name: "F15_no_credentials", conf: func(c *upstream.Config) { autoDetect(c); c.ClientID, c.ClientSecret = "", "" }, answer: refuses(401, "e")}.differs(
		`header :; nothing; refused 401: oauth2: "e" {"error":"e"}`, `header :; refused 401: oauth2: "e" {"error":"e"}`,
		"There are no credentials to send in another form."),
}

// Token responses.
var responseRows = []row{
	row{name: "expires_in_number", answer: expires("60")}.same("header; token at 1m0s"),
	row{name: "expires_in_string", answer: expires(`"60"`)}.same("header; token at 1m0s"),
	row{name: "expires_in_null", answer: expires("null")}.same("header; token at"),
	row{name: "expires_in_absent", answer: says(bearer)}.same("header; token at"),
	row{name: "expires_in_zero", answer: expires("0")}.same("header; token at"),
	row{name: "expires_in_zero_string", answer: expires(`"0"`)}.same("header; token at"),
	row{name: "expires_in_negative", answer: expires("-1")}.same("header; token at -1s"),
	row{name: "expires_in_clamped_to_68_years", answer: expires("99999999999")}.same("header; token at 596523h14m7s"),
	row{name: "P1_float", do: asks(expires("60.0"), expires("60.5"), expires("6e1"))}.differs(
		"header; error; header; error; header; error", "header; token at 1m0s; header; token at 1m0s; header; token at 1m0s",
		"RFC 6749, Appendix A.14, allows only digits, but servers send whatever their JSON library makes of a number. Fractions are dropped."),
	row{name: "P1_empty_string", answer: expires(`""`)}.differs(
		`header; error: oauth2: cannot parse json: json: invalid number literal, trying to unmarshal "\"\"" into Number`, "header; token at",
		"Some servers send an empty string when they have no value. It is treated like a missing expires_in."),
	row{name: "P1d_below_int32", answer: expires("-2147483649")}.differs(
		"header; token at 596523h14m7s", "header; token at -596523h14m7s",
		"Upstream's number wraps around, so that an expired token lives for 68 years."),
	row{name: "P1d_beyond_int64", answer: expires("99999999999999999999")}.differs(
		`header; error: oauth2: cannot parse json: strconv.ParseInt: parsing "99999999999999999999": value out of range`, "header; token at 596523h14m7s",
		"It is clamped to 68 years, like any number that is too large."),
	row{name: "P1d_form_beyond_int32", answer: form("access_token=at&token_type=Bearer&expires_in=99999999999")}.differs(
		"header; token at 2157299h53m50.45224192s", "header; token at 596523h14m7s",
		"The same parser reads JSON and forms, so both are clamped."),
	row{name: "P2_form_not_a_number", answer: form("access_token=at&token_type=Bearer&expires_in=abc")}.differs(
		"header; token at",
		"header; error: oauth2: cannot fetch token: expires_in is not a number (status 200, application/x-www-form-urlencoded, 48 bytes)",
		"Upstream treats a token whose expires_in it can't read as one that never expires."),
	row{name: "P2_form_float", answer: form("access_token=at&token_type=Bearer&expires_in=60.5")}.differs(
		"header; token at", "header; token at 1m0s",
		"Upstream treats the token as one that never expires."),
	row{name: "ExpiresIn_filled", do: func(tr *trial) {
		tr.note("%d", tr.token().ExpiresIn)
	}}.differs("header; 0", "header; 3600",
		"Programs look for the lifetime there."),
	row{name: "F12_expiry_counts_from_before_sending", answer: answer{delay: 9 * time.Second}}.differs(
		"header; token at-1 1h0m9s", "header; token at-1 1h0m0s",
		"The life of a token starts when the answer is generated (RFC 6749, Section 5.1). Counting from its arrival would make the token live too long."),
	row{name: "extra_of_json", answer: says(`{"access_token":"at","expires_in":60,"s":"1","n":1,"f":1.5,"b":true,"z":null,"o":{"k":[1]}}`), do: extras("s", "n", "f", "b", "z", "o", "expires_in", "absent")}.same(
		`header; s=string "1" n=float64 1 f=float64 1.5 b=bool true z=<nil> <nil> o=map[string]interface {} map[string]interface {}{"k":[]interface {}{1}} expires_in=float64 60 absent=<nil> <nil>`),
	row{name: "extra_of_form", answer: form("access_token=at&expires_in=60&s=x&n=1&f=1.5&n=2"), do: extras("s", "n", "f", "expires_in", "absent")}.same(
		`header; s=string "x" n=int64 1 f=float64 1.5 expires_in=int64 60 absent=string ""`),
	row{name: "refresh_token_is_kept", answer: says(`{"access_token":"at","token_type":"Bearer","refresh_token":"rt"}`)}.same("header; token at refresh=rt"),
	row{name: "form_response", answer: form("access_token=a%2Bt&token_type=Bearer&expires_in=60&refresh_token=rt")}.same("header; token a+t refresh=rt 1m0s"),
	row{name: "form_response_as_text_plain", answer: answer{mediaType: "text/plain; charset=utf-8", body: "access_token=at&token_type=Bearer"}}.same(
		"header; token at"),
	row{name: "form_response_without_length", answer: answer{mediaType: formType, body: "access_token=at&token_type=Bearer", unframed: true}}.same(
		"header; token at"),
	row{name: "json_response_as_text_html", answer: answer{mediaType: "text/html", body: bearer}}.same("header; token at"),
	row{name: "json_response_without_media_type", answer: answer{body: bearer}}.same("header; token at"),
	row{name: "status_201", answer: answer{status: 201, body: bearer}}.same("header; token at"),
	row{name: "status_202", answer: answer{status: 202, body: bearer}}.same("header; token at"),
	row{name: "status_200_with_error", answer: says(`{"access_token":"","error":"e","error_description":"d","error_uri":"u"}`)}.same(
		`header; refused 200: oauth2: "e" "d" "u" {"access_token":"","error":"e","error_description":"d","error_uri":"u"}`),
	row{name: "large_access_token", answer: says(`{"access_token":"` + strings.Repeat("a", 900_000) + `","token_type":"Bearer"}`)}.same(
		"header; token aaaaaaaaaaaa... (900000 bytes)"),
	row{name: "token_type_absent", answer: says(`{"access_token":"at"}`), do: asksClient(client, 0)}.same(`header; GET https://api.test/ Bearer at`),
	row{name: "token_type_bearer_in_lower_case", answer: says(`{"access_token":"at","token_type":"bearer"}`), do: asksClient(client, 0)}.same(
		"header; GET https://api.test/ Bearer at"),
	row{name: "token_type_mac", answer: says(`{"access_token":"at","token_type":"mac"}`), do: asksClient(client, 0)}.same("header; GET https://api.test/ MAC at"),
	row{name: "token_type_unknown", answer: says(`{"access_token":"at","token_type":"N_A"}`), do: asksClient(client, 0)}.same(
		"header; GET https://api.test/ N_A at"),
	row{name: "token_type_is_not_normalised", answer: says(`{"access_token":"at","token_type":"bearer"}`)}.same(`header; token at "bearer"`),
	row{name: "case_variant_of_a_name", answer: says(`{"Access_Token":"at","TOKEN_TYPE":"Bearer","Expires_in":60}`)}.same("header; token at 1m0s"),
	row{name: "duplicate_of_an_unknown_name", answer: says(`{"access_token":"at","x":"a","x":"b"}`), do: extras("x")}.same(`header; x=string "b"`),
	row{name: "P3a_duplicate_keys", answer: says(`{"access_token":"a","access_token":"b"}`)}.differs(
		`header; token b ""`, "header; error: oauth2: cannot fetch token: access_token appears more than once (status 200, application/json, 39 bytes)",
		"RFC 6749, Section 3.2, forbids it, and parsers disagree about which of the two to use."),
	row{name: "P3a_duplicate_form_keys", answer: form("access_token=a&access_token=b")}.differs(
		`header; token a ""`,
		"header; error: oauth2: cannot fetch token: access_token appears more than once (status 200, application/x-www-form-urlencoded, 29 bytes)",
		"RFC 6749, Section 3.2, forbids it, and parsers disagree about which of the two to use."),
	row{name: "P3a_unicode_folding", answer: says(`{"access_token":"a","acceſſ_token":"b"}`)}.differs(
		`header; token b ""`, `header; token a ""`,
		"The name must be the one in RFC 6749, Section 5.1, not one that equals it after Unicode case folding."),
	row{name: "P3a_case_variant_beside_exact", answer: says(`{"access_token":"a","ACCESS_TOKEN":"b"}`)}.differs(
		`header; token b ""`, `header; token a ""`,
		"The exact name takes precedence."),
	row{name: "P3b_invalid_unicode", do: asks(says("{\"access_token\":\"a\xff\"}"), says(`{"access_token":"a\ud800"}`))}.differs(
		"header; token a\ufffd \"\"; header; token a\ufffd \"\"", "header; error; header; error",
		"RFC 6749, Appendix A.12, forbids it, and the token wouldn't be the one that the server meant."),
	row{name: "access_token_with_odd_characters", do: asks(says(`{"access_token":"a b"}`), says(`{"access_token":" a\t"}`), says(`{"access_token":"ä"}`))}.same(
		"header; token a b \"\"; header; token  a\t \"\"; header; token \u00e4 \"\""),
	row{name: "token_type_that_is_no_scheme", do: asks(says(`{"access_token":"at","token_type":"Access Token"}`), says(`{"access_token":"at","token_type":"Bearer "}`))}.same(
		`header; token at "Access Token"; header; token at "Bearer "`),
	row{name: "P7_token_type_that_is_no_scheme_on_the_wire", answer: says(`{"access_token":"at","token_type":"urn:x y"}`), do: func(tr *trial) {
		tr.get(client(tr), apiURL)
	}}.differs(
		"header; GET https://api.test/ urn:x y at", "header; GET https://api.test/ Bearer at",
		"It isn't the name of an authentication scheme (RFC 9110, Section 11.1). Config.AuthScheme names one."),
	row{name: "P3c_access_token_characters", do: asks(says(`{"access_token":"a\r\nX: y"}`), says(`{"access_token":"a\u0000"}`))}.differs(
		"header; token a\r\nX: y \"\"; header; token a\x00 \"\"",
		"header; error; header; error",
		"No header field can hold such a token (RFC 9110, Section 5.5), so it must not be cached."),
	row{name: "P3d_token_type_with_line_break", answer: says(`{"access_token":"at","token_type":"Bearer\r\nX: y"}`)}.differs(
		`header; token at "Bearer\r\nX: y"`,
		"header; error: oauth2: cannot fetch token: token_type contains a control character, which no header field can hold (status 200, application/json, 51 bytes)",
		"It becomes part of a header field, and isn't the name of an authentication scheme (RFC 9110, Section 11.1)."),
	row{name: "P3e_dpop", answer: says(`{"access_token":"at","token_type":"DPoP"}`)}.differs(
		`header; token at "DPoP"`,
		"header; error: oauth2: cannot fetch token: token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config.DPoP (status 200, application/json, 41 bytes)",
		"The token can't be used without the key (RFC 9449, Section 7.1)."),
	row{name: "P3f_json_as_text_plain", answer: answer{mediaType: "text/plain", body: bearer}}.differs(
		"header; error: oauth2: server response missing access_token", "header; token at",
		"JSON is recognized by its opening brace."),
	row{name: "P3f_byte_order_mark", answer: says("\ufeff" + bearer)}.differs(
		"header; error: oauth2: cannot parse json: invalid character 'ï' looking for beginning of value", "header; token at",
		"RFC 8259, Section 8.1, allows parsers to ignore it."),
	row{name: "P3g_html", answer: answer{mediaType: "text/html", body: "<html>"}}.differs(
		"header; error: oauth2: cannot parse json: invalid character '<' looking for beginning of value",
		"header; error: oauth2: cannot parse json: invalid character '<' looking for beginning of value: the body looks like HTML or XML; check that TokenURL is the token endpoint (status 200, text/html, 6 bytes)",
		"Upstream's text comes first. Then the error, a ResponseError, says what is in the way, with the status, the media type and the size."),
	row{name: "P3g_empty", answer: answer{body: " "}}.differs(
		"header; error: oauth2: cannot parse json: unexpected end of JSON input",
		"header; error: oauth2: cannot parse json: unexpected end of JSON input: the body is empty (status 200, no media type, 1 bytes)",
		"Upstream's text comes first. Then the error, a ResponseError, says what is in the way, with the status, the media type and the size."),
	row{name: "P3g_204", answer: answer{status: 204, unframed: true}}.differs(
		"header; error: oauth2: cannot parse json: unexpected end of JSON input",
		"header; error: oauth2: cannot parse json: unexpected end of JSON input: the body is empty (status 204, no media type, 0 bytes)",
		"Upstream's text comes first. Then the error, a ResponseError, says what is in the way, with the status, the media type and the size."),
	row{name: "P3g_array", answer: says("[]")}.differs(
		"header; error: oauth2: cannot parse json: json: cannot unmarshal array into Go value of type internal.tokenJSON",
		"header; error: oauth2: cannot parse json: json: cannot unmarshal array into Go value of type internal.tokenJSON: the body is not an object (status 200, application/json, 2 bytes)",
		"Upstream's text comes first. Then the error, a ResponseError, says what is in the way, with the status, the media type and the size."),
	row{name: "P3g_larger_than_1_MiB", answer: says(`{"access_token":"at","x":"` + strings.Repeat("x", 1<<20) + `"}`)}.differs(
		"header; error: oauth2: cannot parse json: unexpected end of JSON input",
		"header; error: oauth2: cannot parse json: unexpected end of JSON input: the answer is larger than 1 MiB (status 200, application/json, 1048577 bytes)",
		"Upstream's text comes first. Then the error names the limit, which causes the syntax error."),
	row{name: "P3g_missing_access_token", answer: says(`{"token_type":"Bearer"}`)}.differs(
		"header; error: oauth2: server response missing access_token",
		"header; error: oauth2: server response missing access_token: it has \"token_type\" (status 200, application/json, 23 bytes)",
		"Upstream's text comes first. Then the error, a ResponseError, says what is in the way, with the status, the media type and the size."),
	row{name: "P3h_206", answer: answer{status: 206, body: bearer}}.differs(
		"header; token at", "header; error: oauth2: cannot fetch token: the answer is a part of something larger (status 206, no media type, 43 bytes)",
		"The request didn't ask for a part (RFC 9110, Section 15.3.7)."),
	row{name: "P4_member_of_another_type", answer: says(`{"access_token":["at"]}`)}.differs(
		"header; error: oauth2: cannot parse json: json: cannot unmarshal array into Go struct field tokenJSON.access_token of type string",
		"header; error: oauth2: cannot parse json: json: cannot unmarshal array into Go struct field tokenJSON.access_token of type string: access_token is not a string (status 200, application/json, 23 bytes)",
		"Upstream's text comes first. Then the error names the member of the response."),
	row{name: "L5_value_in_error", answer: says(`{"access_token":"at","expires_in":"at-2"}`)}.differs(
		`header; error: oauth2: cannot parse json: json: invalid number literal, trying to unmarshal "\"at-2\"" into Number`,
		"header; error: oauth2: cannot parse json: expires_in is not a number (status 200, application/json, 41 bytes)",
		"The value may be a misplaced token, so errors name only the member."),
	row{name: "L6_cut_body", once: true, answer: answer{body: `{"access_token":`, unframed: true, header: []string{"Content-Length: 100"}}, do: func(tr *trial) {
		_, err := tr.Token(tr.ctx)
		tr.failed(err)
		tr.note("%t", errors.Is(err, io.ErrUnexpectedEOF))
	}}.differs(
		"header; error: oauth2: cannot fetch token: unexpected EOF; false",
		"header; error: oauth2: cannot fetch token: unexpected EOF: the answer ended early; true",
		"A program can see that the answer was cut off."),
}

// extras notes the types and values that Token.Extra returns.
func extras(names ...string) func(*trial) {
	return func(tr *trial) {
		token, words := tr.token(), []string(nil)
		for _, name := range names {
			words = append(words, fmt.Sprintf("%s=%[2]T %#[2]v", name, token.Extra(name)))
		}
		tr.note("%s", strings.Join(words, " "))
	}
}

// Errors and redirects of the token endpoint.
var errorRows = []row{
	row{name: "error_response_json", answer: answer{status: 401, mediaType: "application/json;charset=UTF-8", body: `{"error":"e","error_description":"d","error_uri":"u"}`}}.same(
		`header; refused 401: oauth2: "e" "d" "u" {"error":"e","error_description":"d","error_uri":"u"}`),
	row{name: "error_response_form", answer: answer{status: 400, mediaType: formType, body: "error=e&error_description=d+d&error_uri=u"}}.same(
		`header; refused 400: oauth2: "e" "d d" "u" error=e&error_description=d+d&error_uri=u`),
	row{name: "error_response_html", once: true, answer: answer{status: 500, mediaType: "text/html", body: "<p>\tdown\n</p>"}}.same(
		"header; refused 500: oauth2: cannot fetch token: 500 Internal Server Error\nResponse: <p>\tdown\n</p>"),
	row{name: "error_response_plain", answer: answer{status: 400, mediaType: "text/plain", body: "what?"}}.same(
		"header; refused 400: oauth2: cannot fetch token: 400 Bad Request\nResponse: what?"),
	row{name: "error_response_empty", answer: fails(401)}.same("header; refused 401: oauth2: cannot fetch token: 401 Unauthorized\nResponse: "),
	row{name: "error_response_keeps_its_header", answer: answer{status: 429, header: []string{"Retry-After: 60"}}, do: func(tr *trial) {
		resp := tr.refusal().Response
		tr.note("%s %s", resp.Status, resp.Header.Get("Retry-After"))
	}}.same("header; 429 Too Many Requests 60"),
	row{name: "error_response_300_without_location", answer: fails(300)}.same("header; refused 300: oauth2: cannot fetch token: 300 Multiple Choices\nResponse: "),
	row{name: "network_error_is_url_error", once: true, answer: answer{none: true}}.same(`header; url.Error: Post "https://as.test/token": EOF`),
	row{name: "error_of_client_wraps_retrieve_error", answer: refuses(401, "e"), do: func(tr *trial) {
		_, err := tr.Client(tr.ctx).Get(apiURL)
		var refusal *oauth2.RetrieveError
		tr.note("%t", errors.As(err, &refusal))
		tr.failed(err)
	}}.same(`header; true; url.Error: Get "https://api.test/": oauth2: "e"`),
	row{name: "P4_error_member_of_another_type", answer: answer{status: 400, body: `{"error":"e","error_description":["d"]}`}}.differs(
		"header; refused 400: oauth2: cannot fetch token: 400 Bad Request\nResponse: {\"error\":\"e\",\"error_description\":[\"d\"]}",
		`header; refused 400: oauth2: "e" {"error":"e","error_description":["d"]}`,
		"Programs look for the code, whatever else is wrong with the answer."),
	row{name: "L1_request_in_error", conf: inParams, answer: refuses(401, "e"), do: func(tr *trial) {
		req := tr.refusal().Response.Request
		tr.note("%s %v GetBody: %t", req.Method, req.URL, req.GetBody != nil)
	}}.differs("params; POST https://as.test/token GetBody: true", "params; POST https://as.test/token GetBody: false",
		"Errors are logged, so the request in them says where it went but has no credentials, query or body."),
	row{name: "L1_authorization_in_error", answer: refuses(401, "e"), do: func(tr *trial) {
		tr.note("%q", tr.refusal().Response.Request.Header.Get("Authorization"))
	}}.differs(`header; "Basic aWQ6c2VjcmV0"`, `header; ""`,
		"Errors are logged, so the request in them says where it went but has no credentials, query or body."),
	row{name: "L1b_echo_in_error", answer: answer{status: 400, body: "unknown secret, not Basic aWQ6c2VjcmV0"}}.differs(
		"header; refused 400: oauth2: cannot fetch token: 400 Bad Request\nResponse: unknown secret, not Basic aWQ6c2VjcmV0",
		"header; refused 400: oauth2: cannot fetch token: 400 Bad Request\nResponse: unknown [redacted], not Basic [redacted]",
		"Errors are logged, so the client's own credentials are masked in them."),
	row{name: "L3_query_in_error", once: true, conf: withTokenURL(tokenURL + "?key=k"), answer: answer{none: true}}.differs(
		`header ?key=k; url.Error: Post "https://as.test/token?key=k": EOF`, `header ?key=k; url.Error: Post "https://as.test/token": EOF`,
		"Errors are logged, and some programs put keys into queries."),
	row{name: "L4_large_error_body", once: true, answer: answer{status: 500, body: strings.Repeat("x", 100_000)}}.differs(
		"header; refused 500: oauth2: cann... (100064 bytes)", "header; refused 500: oauth2: cann... (8256 bytes)",
		"8 KiB are enough to understand the error, and the text ends up in logs."),
	row{name: "L4_control_characters_in_error", once: true, answer: answer{status: 500, body: "a\x1b[2Jb"}}.differs(
		"header; refused 500: oauth2: cannot fetch token: 500 Internal Server Error\nResponse: a\x1b[2Jb",
		"header; refused 500: oauth2: cannot fetch token: 500 Internal Server Error\nResponse: a�[2Jb",
		"They could change what a terminal or a log shows."),
	row{name: "R3_redirect_of_a_token_request", conf: inParams, do: asks(
		redirects(301, "https://evil.test/"), redirects(302, "https://evil.test/"), redirects(303, "https://evil.test/"),
		redirects(307, "https://evil.test/"), redirects(308, "https://evil.test/"),
	)}.differs(
		strings.Repeat(`params; GET https://evil.test/; token hostile ""; `, 3)+
			`params; POST https://evil.test/ and the secret; token hostile ""; params; POST https://evil.test/ and the secret; token hostile ""`,
		"params; refused 301; params; refused 302; params; refused 303; params; refused 307; params; refused 308",
		"Only TokenURL may receive the secret and issue tokens. The error wraps a RetrieveError and names the target's origin."),
	row{name: "R3b_redirect_to_another_port", answer: redirects(307, "https://as.test:8443/token")}.differs(
		`header; POST https://as.test:8443/token Basic aWQ6c2VjcmV0; token hostile ""`,
		"header; error: oauth2: cannot fetch token: the token endpoint answered 307, a redirect to https://as.test:8443, which is not followed; set TokenURL to the endpoint's final address: oauth2: cannot fetch token: 307 Temporary Redirect\nResponse: ",
		"Another port is another origin (RFC 6454, Section 4)."),
	row{name: "R3_redirect_on_the_same_origin", answer: redirects(308, "/v2/token")}.differs(
		`header; POST https://as.test/v2/token Basic aWQ6c2VjcmV0; token hostile ""`,
		"header; error: oauth2: cannot fetch token: the token endpoint answered 308, a redirect to https://as.test:443, which is not followed; set TokenURL to the endpoint's final address: oauth2: cannot fetch token: 308 Permanent Redirect\nResponse: ",
		"The rule is the same for all redirects. The error says to set TokenURL."),
	row{name: "R4_redirect_to_cleartext", conf: inParams, answer: redirects(308, "http://as.test/v2/token")}.differs(
		`params; POST http://as.test/v2/token and the secret; token hostile ""`,
		"params; error: oauth2: cannot fetch token: the token endpoint answered 308, a redirect to http://as.test:80, which is not followed; set TokenURL to the endpoint's final address: oauth2: cannot fetch token: 308 Permanent Redirect\nResponse: ",
		"Credentials must never travel in cleartext (RFC 6749, Section 3.2)."),
}

// The life of a token.
var cacheRows = []row{
	row{name: "token_always_makes_a_request", do: tokens(2)}.same("header; token at-1 1h0m0s; header; token at-2 1h0m0s"),
	row{name: "token_source_caches", do: asksSource(source, 0, 0)}.same("header; token at-1 1h0m0s; token at-1 1h0m0s"),
	row{name: "token_sources_and_clients_share_no_cache", do: func(tr *trial) {
		tr.got(tr.TokenSource(tr.ctx).Token())
		tr.got(tr.TokenSource(tr.ctx).Token())
		tr.get(tr.Client(tr.ctx), apiURL)
	}}.same("header; token at-1 1h0m0s; header; token at-2 1h0m0s; header; GET https://api.test/ Bearer at-3"),
	row{name: "token_without_expiry_is_kept_forever", answer: says(`{"access_token":"at-#","token_type":"Bearer"}`), do: asksSource(source, 0, 10*365*24*time.Hour)}.same(
		"header; token at-1; token at-1"),
	row{name: "expired_token_is_replaced", do: asksClient(client, 0, 30*time.Minute, time.Hour)}.same(
		"header; GET https://api.test/ Bearer at-1; GET https://api.test/ Bearer at-1; header; GET https://api.test/ Bearer at-2"),
	row{name: "token_is_replaced_in_its_last_10_seconds", do: asksSource(source, 0, time.Hour-5*time.Second)}.same(
		"header; token at-1 1h0m0s; header; token at-2 1h59m55s"),
	row{name: "P16_life_of_less_than_40_seconds", answer: says(`{"access_token":"at-#","token_type":"Bearer","expires_in":30}`), do: asksSource(source, 0, 21*time.Second)}.differs(
		"header; token at-1 30s; header; token at-2 51s", "header; token at-1 30s; token at-1 30s",
		"Upstream replaces every token in its last 10 seconds, and so one of 20 seconds every 10. Here a token is replaced in the last tenth of its life, 10 seconds at most, or earlier in the background."),
	row{name: "tokens_are_valid", do: func(tr *trial) {
		for _, get := range []func() (*oauth2.Token, error){
			func() (*oauth2.Token, error) { return tr.Token(tr.ctx) },
			tr.TokenSource(tr.ctx).Token,
			tr.transport(tr.Client(tr.ctx)).Source.Token,
		} {
			token, err := get()
			require.NoError(tr, err)
			tr.note("%t", token.Valid())
		}
	}}.same("header; true; header; true; header; true"),
	row{name: "fields_are_read_at_each_request", do: func(tr *trial) {
		source := tr.TokenSource(tr.ctx)
		tr.got(source.Token())
		tr.assign(func(c *upstream.Config) {
			c.ClientSecret = "new"
			c.Scopes = []string{"s"}
			c.EndpointParams = url.Values{"a": {"b"}}
		})
		tr.got(source.Token())
		tr.after(time.Hour)
		tr.got(source.Token())
	}}.same("header; token at-1 1h0m0s; token at-1 1h0m0s; header id:new a=b&scope=s; token at-2 2h0m0s"),
	row{name: "concurrent_cold_calls_make_one_request", do: func(tr *trial) {
		client := tr.Client(tr.ctx)
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() { tr.get(client, apiURL) })
		}
		callers.Wait()
		tr.mu.Lock()
		defer tr.mu.Unlock()
		calls := len(tr.transcript)
		tr.transcript = append(slices.Compact(tr.transcript), strconv.Itoa(calls))
	}}.same("header; GET https://api.test/ Bearer at-1; 51"),
	row{name: "failure_is_not_cached", before: []answer{fails(400)}, do: func(tr *trial) {
		source := tr.TokenSource(tr.ctx)
		_, err := source.Token()
		require.Error(tr, err)
		tr.got(source.Token())
	}}.same("header; header; token at-2 1h0m0s"),
	row{name: "cached_token_outlives_the_construction_context", do: func(tr *trial) {
		ctx, cancel := context.WithCancel(tr.ctx)
		source := tr.TokenSource(ctx)
		tr.got(source.Token())
		cancel()
		tr.after(30 * time.Minute)
		tr.got(source.Token())
		tr.after(time.Hour)
		_, err := source.Token()
		tr.note("%t", errors.Is(err, context.Canceled))
	}}.same("header; token at-1 1h0m0s; token at-1 1h0m0s; true"),
	row{name: "F4_construction_context_done", do: func(tr *trial) {
		ctx, cancel := context.WithCancel(tr.ctx)
		source := tr.TokenSource(ctx)
		cancel()
		tr.got(source.Token())
	}}.differs(
		`url.Error: Post "https://as.test/token": context canceled`,
		"error: oauth2: cannot fetch token: the context given to Config.Client, Source, TokenSource or Transport is done; give it one that lives as long as the service: context canceled",
		"The error says which context is done, and what to do."),
	row{name: "F33_context_without_a_client", conf: withTokenURL("http://127.0.0.1:1/token"), do: func(tr *trial) {
		_, err := tr.Token(context.WithValue(tr.ctx, oauth2.HTTPClient, http.Client{Timeout: time.Second}))
		tr.note("%t", err != nil && strings.Contains(err.Error(), "in the context under oauth2.HTTPClient is a http.Client"))
	}}.differs("false", "true", "Upstream ignores the value, and sends the secret through another client than the program means."),
	row{name: "F1_cold_start_bounded_by_the_request", answer: answer{delay: 2 * time.Second}, do: func(tr *trial) {
		ctx, cancel := context.WithTimeout(tr.ctx, 100*time.Millisecond)
		defer cancel()
		client := tr.Client(tr.ctx)
		_, err := client.Do(tr.request(ctx, http.MethodGet, apiURL, ""))
		tr.note("%t after %v", errors.Is(err, context.DeadlineExceeded), time.Since(tr.start))
		tr.after(3 * time.Second)
		tr.get(client, apiURL)
	}}.differs(
		"header; true after 2s; GET https://api.test/ Bearer at-1", "header; true after 100ms; GET https://api.test/ Bearer at-1",
		"A caller waits no longer than its own context allows. The token request continues for later callers."),
	row{name: "H4_request_context_already_done", do: func(tr *trial) {
		ctx, cancel := context.WithCancel(tr.ctx)
		cancel()
		_, err := tr.Client(tr.ctx).Do(tr.request(ctx, http.MethodGet, apiURL, ""))
		tr.note("%t", errors.Is(err, context.Canceled))
	}}.differs("header; true", "true",
		"Nobody would wait for the token."),
	row{name: "F2_failure_is_shared", do: func(tr *trial) {
		// Upstream's callers wait for a mutex, and the clock of the bubble stands still
		// during that. So the answer may be delayed only here.
		a := fails(401)
		if _, ok := tr.config.(*clientcredentials.Config); ok {
			a.delay = time.Second
		}
		tr.answers(a)
		client := tr.Client(tr.ctx)
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				_, err := client.Get(apiURL)
				var refusal *oauth2.RetrieveError
				assert.ErrorAs(tr, err, &refusal)
			})
		}
		callers.Wait()
	}}.differs("header; header; header", "header",
		"Callers that wait for one token request share its error too. Upstream's callers ask one after the other."),
	row{name: "F10_early_refresh", do: asksSource(source, 0, 57*time.Minute, 57*time.Minute+2*time.Second)}.differs(
		"header; token at-1 1h0m0s; token at-1 1h0m0s; token at-1 1h0m0s", "header; token at-1 1h0m0s; header; token at-1 1h0m0s; token at-2 1h57m0s",
		"A token is replaced in the background, up to 5 minutes before its expiry, and no caller waits for that."),
	row{name: "F10_refresh_fails_before_the_expiry", before: []answer{{}}, answer: fails(503), do: asksSource(source, 0, time.Hour-5*time.Second)}.differs(
		"header; token at-1 1h0m0s; header; refused 503: oauth2: cannot fetch token: 503 Service Unavailable\nResponse: ",
		"header; token at-1 1h0m0s; header; token at-1 1h0m0s",
		"A valid token is better than an error."),
	row{name: "F11_revoked_token", do: asksStatus("revoked", "revoked")}.differs(
		"header; GET https://api.test/revoked Bearer at-1; 401; GET https://api.test/revoked Bearer at-1; 401",
		"header; GET https://api.test/revoked Bearer at-1; header; GET https://api.test/revoked Bearer at-2; 200; GET https://api.test/revoked Bearer at-2; 200",
		"A 401 with invalid_token says that a new token would help (RFC 6750, Section 3.1). The request is sent again with one if it has no body or a GetBody."),
	row{name: "F11_unauthorized", do: asksStatus("unauthorized", "unauthorized", "unauthorized")}.differs(
		"header; GET https://api.test/unauthorized Bearer at-1; 401; GET https://api.test/unauthorized Bearer at-1; 401; GET https://api.test/unauthorized Bearer at-1; 401",
		"header; GET https://api.test/unauthorized Bearer at-1; 401; header; GET https://api.test/unauthorized Bearer at-2; 401; GET https://api.test/unauthorized Bearer at-2; 401",
		"A token that the API refuses is dropped, at most every 30 seconds. Upstream sends it until it expires."),
	row{name: "P1c_short_tokens", answer: says(`{"access_token":"at-#","token_type":"Bearer","expires_in":5}`), do: asksClient(client, 0, 0, 0)}.differs(
		"header; GET https://api.test/ Bearer at-1; header; GET https://api.test/ Bearer at-2; header; GET https://api.test/ Bearer at-3",
		"header; GET https://api.test/ Bearer at-1; GET https://api.test/ Bearer at-1; GET https://api.test/ Bearer at-1",
		"Upstream treats a token as expired 10 seconds early, so with short-lived tokens each call makes a token request."),
	row{name: "P1c_expired_on_arrival", answer: says(`{"access_token":"at-#","token_type":"Bearer","expires_in":-1}`), do: asksSource(source, 0, 0, 2*time.Second)}.differs(
		"header; token at-1 -1s; header; token at-2 -1s; header; token at-3 1s", "header; token at-1 -1s; token at-1 -1s; header; token at-2 1s",
		"Each token is used for at least a second. Otherwise each call to the API would make a token request."),
	row{name: "H2_edited_token", do: func(tr *trial) {
		client := tr.Client(tr.ctx)
		token, err := tr.transport(client).Source.Token()
		require.NoError(tr, err)
		token.AccessToken = "edited"
		tr.get(client, apiURL)
	}}.differs("header; GET https://api.test/ Bearer edited", "header; GET https://api.test/ Bearer at-1",
		"A caller may change the token that it gets. Upstream's Client shares one token with all callers, which is a data race."),
	row{name: "token_source_shares_one_token", do: func(tr *trial) {
		source := tr.TokenSource(tr.ctx)
		a, err := source.Token()
		require.NoError(tr, err)
		b, err := source.Token()
		require.NoError(tr, err)
		tr.note("%t", a == b)
	}}.same("header; true"),
	row{name: "F18_panic_in_the_token_request", do: func(tr *trial) {
		tr.http.Transport = roundTripper(func(*http.Request) (*http.Response, error) { panic("in RoundTrip") })
		tr.got(tr.TokenSource(tr.ctx).Token())
	}}.differs("panic", "error: oauth2: cannot fetch token: the token request panicked with a value of type string",
		"The token request runs in its own goroutine, where a panic would end the program."),
	row{name: "reuse_token_source_returns_the_same", do: func(tr *trial) {
		source := tr.TokenSource(tr.ctx)
		tr.note("%t", oauth2.ReuseTokenSource(nil, source) == source)
		tr.note("%t", oauth2.ReuseTokenSourceWithExpiry(nil, source, time.Minute) == source)
		tr.note("%t", tr.transport(oauth2.NewClient(tr.ctx, source)).Source == source)
	}}.same("true; true; true"),
	row{name: "reuse_token_source_uses_the_given_token_first", do: func(tr *trial) {
		token := &oauth2.Token{AccessToken: "mine", TokenType: "Bearer", Expiry: tr.start.Add(time.Minute)}
		source := oauth2.ReuseTokenSource(token, tr.TokenSource(tr.ctx))
		tr.got(source.Token())
		tr.after(time.Minute)
		tr.got(source.Token())
		tr.got(source.Token())
	}}.same("token mine 1m0s; header; token at-1 1h1m0s; token at-1 1h1m0s"),
	row{name: "reuse_token_source_with_a_token_and_the_cache", do: func(tr *trial) {
		source := tr.TokenSource(tr.ctx)
		tr.got(source.Token())
		tr.got(oauth2.ReuseTokenSource(new(oauth2.Token), source).Token())
	}}.differs("header; token at-1 1h0m0s; header; token at-2 1h0m0s", "header; token at-1 1h0m0s; token at-1 1h0m0s",
		"ReuseTokenSource removes the outer cache of the source. Here there is another cache below it."),
	row{name: "reuse_token_source_with_expiry_refreshes_early", do: asksSource(withMargin, 0, 39*time.Minute, 41*time.Minute, 41*time.Minute)}.same(
		"header; token at-1 1h0m0s; token at-1 1h0m0s; header; token at-2 1h41m0s; token at-2 1h41m0s"),
	row{name: "P1c_margin_longer_than_the_life", answer: says(`{"access_token":"at-#","token_type":"Bearer","expires_in":60}`), do: asksSource(withMargin, 0, 0, 0)}.differs(
		"header; token at-1 1m0s; header; token at-2 1m0s; header; token at-3 1m0s", "header; token at-1 1m0s; token at-1 1m0s; token at-1 1m0s",
		"Upstream makes a token request for each call. Here a token is used for at least half its life."),
	row{name: "F10_refresh_fails_within_the_margin", before: []answer{{}}, answer: fails(503), do: asksSource(withMargin, 0, 41*time.Minute)}.differs(
		"header; token at-1 1h0m0s; header; refused 503: oauth2: cannot fetch token: 503 Service Unavailable\nResponse: ",
		"header; token at-1 1h0m0s; header; token at-1 1h0m0s",
		"A valid token is better than an error."),
	row{name: "new_client_around_token_source", do: asksClient(func(tr *trial) *http.Client { return oauth2.NewClient(tr.ctx, source(tr)) }, 0, 0, time.Hour)}.same(
		"header; GET https://api.test/ Bearer at-1; GET https://api.test/ Bearer at-1; header; GET https://api.test/ Bearer at-2"),
}

// API requests.
var clientRows = []row{
	row{name: "client_takes_over_the_context_client", do: func(tr *trial) {
		jar, err := cookiejar.New(nil)
		require.NoError(tr, err)
		tr.http.Timeout = time.Minute
		tr.http.Jar = jar
		tr.http.CheckRedirect = func(*http.Request, []*http.Request) error {
			tr.note("CheckRedirect")
			return http.ErrUseLastResponse
		}
		client := tr.Client(tr.ctx)
		tr.note("%v %t", client.Timeout, client.Jar == http.CookieJar(jar))
		tr.get(client, apiURL+"?to=/other")
	}}.same("1m0s true; header; GET https://api.test/ Bearer at-1; CheckRedirect").before030("0s false; header; GET https://api.test/ Bearer at-1; GET https://api.test/other Bearer at-1"),
	row{name: "client_transport_is_an_oauth2_transport", do: func(tr *trial) {
		client := tr.Client(tr.ctx)
		transport := tr.transport(client)
		tr.got(transport.Source.Token())
		base := transport.Base
		transport.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			tr.note("Base %s", req.Header.Get("Authorization"))
			return base.RoundTrip(req)
		})
		tr.get(client, apiURL)
	}}.same("header; token at-1 1h0m0s; Base Bearer at-1; GET https://api.test/ Bearer at-1"),
	row{name: "client_transport_base_may_be_replaced", do: func(tr *trial) {
		client := tr.Client(tr.ctx)
		tr.transport(client).Base = tr.dialer()
		tr.get(client, apiURL)
	}}.same("header; GET https://api.test/ Bearer at-1"),
	row{name: "client_transport_base", do: func(tr *trial) {
		tr.note("%t", tr.transport(tr.Client(tr.ctx)).Base == tr.http.Transport)
	}}.differs("true", "false",
		"A wrapper around the context client's Transport keeps the token on its origin, and waits no longer than the request's context allows. Both need the request."),
	row{name: "api_request_on_the_wire", do: func(tr *trial) {
		req := tr.request(tr.ctx, http.MethodPut, apiURL+"a?b=c", "body")
		req.Header.Set("Authorization", "replaced")
		req.Header["x-raw"] = []string{"1", "2"}
		resp, err := tr.Client(tr.ctx).Do(req)
		require.NoError(tr, err)
		resp.Body.Close()
		tr.note("%s", tr.apiRequests[0])
		tr.note("request unchanged: %v", req.Header)
	}}.same(
		"header; PUT https://api.test/a Bearer at-1; PUT /a?b=c HTTP/1.1\r\nHost: api.test\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 4\r\n" +
			"Authorization: Bearer at-1\r\nx-raw: 1\r\nx-raw: 2\r\nAccept-Encoding: gzip\r\n\r\nbody; request unchanged: map[Authorization:[replaced] x-raw:[1 2]]"),
	row{name: "redirect_on_the_same_origin", do: follows("https://api.test", "https://api.test:443", "https://API.test")}.same(
		"header; GET https://api.test/ Bearer at-1; GET https://api.test:443/ Bearer at-1; GET https://API.test/ Bearer at-1"),
	row{name: "R1_redirect_to_another_host", do: follows("https://api.test", "https://other.test")}.differs(
		"header; GET https://api.test/ Bearer at-1; GET https://other.test/ Bearer at-1", "header; GET https://api.test/ Bearer at-1; GET https://other.test/",
		"The token is for the API that the caller chose, not for a host that the API redirects to. Config.Origins allows more."),
	row{name: "R1_redirect_to_another_port", do: follows("https://api.test", "https://api.test:8443")}.differs(
		"header; GET https://api.test/ Bearer at-1; GET https://api.test:8443/ Bearer at-1",
		"header; GET https://api.test/ Bearer at-1; GET https://api.test:8443/",
		"Another port is another origin (RFC 6454, Section 4)."),
	row{name: "R2_redirect_to_cleartext", do: follows("https://api.test", "http://api.test")}.differs(
		"header; GET https://api.test/ Bearer at-1; GET http://api.test/ Bearer at-1", "header; GET https://api.test/ Bearer at-1; GET http://api.test/",
		"Tokens must never travel in cleartext (RFC 6750, Section 5.3)."),
	row{name: "R7_redirect_away_and_back", do: follows("https://api.test", "https://other.test", "https://api.test")}.differs(
		"header; GET https://api.test/ Bearer at-1; GET https://other.test/ Bearer at-1; GET https://api.test/ Bearer at-1",
		"header; GET https://api.test/ Bearer at-1; GET https://other.test/; GET https://api.test/",
		"The other host decides where the rest of the chain leads."),
}

// Misuse, and the Config itself.
var misuseRows = []row{
	row{name: "F5_nil_context", do: func(tr *trial) {
		var none context.Context
		tr.got(tr.Token(none))
	}}.differs("panic", "error: oauth2: the context is nil; pass context.Background() if there is no other",
		"An error is better than a panic."),
	row{name: "F5_nil_client_in_the_context", do: func(tr *trial) {
		tr.got(tr.Token(context.WithValue(tr.ctx, oauth2.HTTPClient, (*http.Client)(nil))))
	}}.differs("panic", "error: oauth2: the *http.Client in the context under oauth2.HTTPClient is nil",
		"An error is better than a panic."),
	row{name: "F5_token_url_empty", conf: withTokenURL("")}.differs(
		`url.Error: Post "": unsupported protocol scheme ""`, `url.Error: Post "": unsupported protocol scheme "": TokenURL is empty; set it to the address of the token endpoint`,
		"Behind upstream's text the error names the field."),
	row{name: "F5_token_url_relative", conf: withTokenURL("/token")}.differs(
		`url.Error: Post "/token": unsupported protocol scheme ""`,
		`url.Error: Post "": unsupported protocol scheme "": TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host`,
		"Behind upstream's text the error names the field. It doesn't quote the address, which may be a misplaced secret."),
	row{name: "F5_token_url_unparsable", conf: withTokenURL("https://as.test/%zz")}.differs(
		`url.Error: parse "https://as.test/%zz": invalid URL escape "%zz"`,
		`url.Error: parse "": oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint`,
		"The error names the field, and quotes none of it, as it may be a misplaced secret."),
	row{name: "token_url_with_fragment", conf: withTokenURL(tokenURL + "#f")}.same("header; token at-1 1h0m0s"),
	row{name: "line_break_in_client_id", conf: func(c *upstream.Config) { c.ClientID = "id\n" }}.same("header id%0A:secret; token at-1 1h0m0s"),
	row{name: "P14_refusal_of_odd_values", answer: refuses(401, "invalid_client"), conf: func(c *upstream.Config) { c.ClientID = "id\n" }}.differs(
		"header id%0A:secret; refused 401: oauth2: \"invalid_client\" {\"error\":\"invalid_client\"}",
		"header id%0A:secret; error: oauth2: \"invalid_client\"\nClientID contains a line break (U+000A); remove it where ClientID is read",
		"A line break or a space at the end of an address, an id or a secret is hardly meant. If the server refuses it, the error wraps the RetrieveError, and says so behind upstream's text."),
	row{name: "L3_secret_in_query_of_token_url", conf: withTokenURL("https://as.test/token?client_secret=s")}.differs(
		"header ?client_secret=s; token at-1 1h0m0s", "error: oauth2: TokenURL contains client_secret in its query; use ClientSecret or EndpointParams",
		"Credentials must not be in the URI, which logs and proxies keep (RFC 6749, Section 2.3.1)."),
	row{name: "L2_printed_config", do: func(tr *trial) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			tr.note("%t", strings.Contains(fmt.Sprintf(verb, tr.config), "secret"))
		}
	}}.differs("true; true; true; true; true", "false; false; false; false; false",
		"Configurations are printed and logged, so fmt and log/slog show only the ID, the TokenURL and the scopes."),
	row{name: "json_of_config", do: func(tr *trial) {
		encoded, err := json.Marshal(tr.config)
		require.NoError(tr, err)
		tr.note("%s", encoded)
	}}.same(`{"ClientID":"id","ClientSecret":"secret","TokenURL":"https://as.test/token","Scopes":null,"EndpointParams":null,"AuthStyle":2}`),
	row{name: "L3_userinfo_in_token_url", conf: func(c *upstream.Config) { inParams(c); c.TokenURL = "https://user:password@as.test/token" }}.differs(
		"header user:password client_id=id&client_secret=secret; token at-1 1h0m0s",
		"error: oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret",
		"A request must authenticate in one way only, and never in the URL (RFC 6749, Sections 2.3 and 2.3.1)."),
}
