package clientcredentials

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"

	memoryTokenURL = "https://auth.example/token"
	memoryID       = "id"
	memorySecret   = "s3cr3t-Canary/+&=~"
)

// A reply is what a tokenEndpoint says to one token request.
type reply struct {
	status    int    // 0: 200
	mediaType string // "": application/json; "none": no Content-Type at all
	header    http.Header
	body      string
	bodyErr   error // where the body ends; nil: io.EOF
	err       error // instead of an answer
}

func (a reply) response(req *http.Request) *http.Response {
	status := a.status
	if status == 0 {
		status = http.StatusOK
	}
	header := http.Header{"Content-Type": {jsonType}}
	if a.header != nil {
		header = a.header.Clone()
		header.Set("Content-Type", jsonType)
	}
	switch a.mediaType {
	case "":
	case "none":
		header.Del("Content-Type")
	default:
		header.Set("Content-Type", a.mediaType)
	}
	var body io.Reader = strings.NewReader(a.body)
	if a.bodyErr != nil {
		body = io.MultiReader(body, failingReader{a.bodyErr})
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", status, http.StatusText(status)),
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          io.NopCloser(body),
		ContentLength: int64(len(a.body)),
		Request:       req,
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// A tokenEndpoint is a token endpoint in memory. It gives its replies in turn,
// and the last one ever after.
type tokenEndpoint struct {
	mu       sync.Mutex // protects what follows
	replies  []reply
	requests []receivedRequest
}

func (e *tokenEndpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.Body.Close()
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.requests = append(e.requests, receivedRequest{req.Header.Clone(), form})
	a := e.replies[0]
	if len(e.replies) > 1 {
		e.replies = e.replies[1:]
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.response(req), nil
}

// config returns a Config of which e is the token endpoint.
func (e *tokenEndpoint) config() *Config {
	return &Config{
		ClientID:     memoryID,
		ClientSecret: memorySecret,
		TokenURL:     memoryTokenURL,
		AuthStyle:    oauth2.AuthStyleInHeader,
		HTTPClient:   &http.Client{Transport: e},
		Retry:        RetryPolicy{MaxAttempts: 1}, // Retries have tests of their own.
	}
}

func (e *tokenEndpoint) received() []receivedRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

type receivedRequest struct {
	header http.Header
	form   url.Values
}

func newTokenEndpoint(replies ...reply) *tokenEndpoint { return &tokenEndpoint{replies: replies} }

// tokenOf returns what Config.Token makes of one answer.
func tokenOf(t *testing.T, a reply, strict bool) (*oauth2.Token, error) {
	t.Helper()
	conf := newTokenEndpoint(a).config()
	conf.Strict = strict
	token, err := conf.Token(t.Context())
	require.True(t, (token == nil) != (err == nil), "a token or an error")
	return token, err
}

// modes runs test by default and with Config.Strict.
func modes(t *testing.T, test func(t *testing.T, strict bool)) {
	t.Run("default", func(t *testing.T) { test(t, false) })
	t.Run("strict", func(t *testing.T) { test(t, true) })
}

// authMethods returns how each request was authenticated. RFC 6749, Section
// 2.3: one method per request.
func authMethods(t *testing.T, requests []receivedRequest) []string {
	t.Helper()
	methods := make([]string, 0, len(requests))
	for _, req := range requests {
		header, params := req.header.Get("Authorization") != "", req.form.Has("client_secret") || req.form.Has("client_id")
		require.False(t, header && params, "two methods in one request")
		switch {
		case header:
			methods = append(methods, "header")
		case params:
			methods = append(methods, "params")
		default:
			methods = append(methods, "none")
		}
	}
	return methods
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answering returns a context whose client answers every token request with body
// and counts the requests.
func answering(ctx context.Context, body string) (context.Context, *atomic.Int32) {
	requests := new(atomic.Int32)
	client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		n := requests.Add(1)
		return &http.Response{
			StatusCode: 200,
			Header:     http.Header{"Content-Type": {"application/json"}},
			Body:       io.NopCloser(strings.NewReader(strings.ReplaceAll(body, "%", fmt.Sprint(n)))),
			Request:    req,
		}, nil
	})}
	return context.WithValue(ctx, oauth2.HTTPClient, client), requests
}

// serve starts a token endpoint on the loopback interface and returns a Config
// with its address.
func serve(t *testing.T, handler http.HandlerFunc) *Config {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client := server.Client()
	return &Config{
		ClientID:     memoryID,
		ClientSecret: memorySecret,
		TokenURL:     server.URL + "/token",
		AuthStyle:    oauth2.AuthStyleInHeader,
		HTTPClient:   client,
		Retry:        RetryPolicy{MaxAttempts: 1},
	}
}

// serveRaw is serve for answers that net/http's server wouldn't give. The
// connection ends with the answer.
func serveRaw(t *testing.T, answer string) *Config {
	return serve(t, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, answer)
		conn.Close()
	})
}

// redirecting is a network of hosts. Each answers a path like
// "/https://b.example/https://c.example/" with a redirect to its first part.
type redirecting struct {
	mu      sync.Mutex
	hops    []string // host and Authorization of each request
	noChain bool     // leave resp.Request nil
	trace   []*http.Request
}

func (r *redirecting) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hop := req.URL.Scheme + "://" + req.URL.Host
	if req.Header.Get("Authorization") != "" {
		hop += " token"
	}
	r.hops = append(r.hops, hop)
	r.trace = append(r.trace, req)
	resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}
	if r.noChain {
		resp.Request = nil
	}
	if next := strings.TrimPrefix(req.URL.Path, "/"); next != "" {
		resp.StatusCode = 307
		resp.Header.Set("Location", next)
	}
	return resp, nil
}

// closeCounter is a body that counts how often it is closed.
type closeCounter struct {
	io.Reader
	closed atomic.Int32
}

func (c *closeCounter) Close() error {
	c.closed.Add(1)
	return nil
}

// zeros is a body without end that counts what is read of it.
type zeros struct{ read int }

func (z *zeros) Read(p []byte) (int, error) {
	z.read += len(p)
	return len(p), nil
}

// authFunc is a ClientAuth that can't be compared.
type authFunc func(ctx context.Context, attempt *Attempt) error

func (authFunc) Method() string { return "client_secret_post" }

func (f authFunc) Authenticate(ctx context.Context, attempt *Attempt) error { return f(ctx, attempt) }

// A scriptedAuth is a ClientAuth with a credential that the test replaces.
type scriptedAuth struct {
	mu         sync.Mutex // protects what follows
	credential string
	calls      int
	err        error
	during     func(ctx context.Context)
}

func (a *scriptedAuth) Method() string { return "private_key_jwt" }

func (a *scriptedAuth) Authenticate(ctx context.Context, attempt *Attempt) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if a.during != nil {
		a.during(ctx)
	}
	if a.err != nil {
		return a.err
	}
	attempt.CredentialID = a.credential
	attempt.Form.Set("client_id", attempt.ClientID)
	attempt.Form.Set("client_assertion", a.credential+"-assertion-"+strconv.Itoa(a.calls))
	return nil
}

func (a *scriptedAuth) rotate(credential string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.credential = credential
}

func newProofSigner(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// canaryKey is a key whose printed form would be found.
var canaryKey = func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}()

// testKey returns a key that isn't random.
func testKey(n byte) []byte { return append(bytes.Repeat([]byte{n}, minKeySize-1), n+1) }

func testKeyring(t testing.TB, numbers ...byte) *Keyring {
	t.Helper()
	var keys [][]byte
	for _, n := range numbers {
		keys = append(keys, testKey(n))
	}
	ring, err := NewKeyring(keys...)
	require.NoError(t, err)
	return ring
}

// observe returns an Observer that hands whatever it is told to call. It sets
// every field that takes an info, also those that are added one day.
func observe(call func(info any)) *Observer {
	o := new(Observer)
	fields := reflect.ValueOf(o).Elem()
	for i := range fields.NumField() {
		field := fields.Field(i)
		if field.Type() == reflect.TypeFor[func(context.Context) (context.Context, func(error))]() {
			continue
		}
		field.Set(reflect.MakeFunc(field.Type(), func(args []reflect.Value) []reflect.Value {
			call(args[0].Interface())
			return nil
		}))
	}
	return o
}

// tell calls the function of o that takes such an info.
func tell(t *testing.T, o *Observer, info any) {
	t.Helper()
	fields := reflect.ValueOf(o).Elem()
	for i := range fields.NumField() {
		field := fields.Field(i)
		if field.Type() == reflect.TypeFor[func(context.Context) (context.Context, func(error))]() {
			continue
		}
		require.False(t, field.IsNil(), "a function is missing")
		if field.Type().In(0) == reflect.TypeOf(info) {
			field.Call([]reflect.Value{reflect.ValueOf(info)})
			return
		}
	}
	t.Fatalf("no function takes a %T", info)
}

const (
	plainSecret = "S3cretCanary0123456789"
	oddSecret   = "S3cr/t Can+ry&<x>=\"y'z\\~*%41\u00e4!"
)

// A way in which a server's error page may repeat a secret.
type echo struct {
	name   string
	encode func(secret string) string
}

var echoes = []echo{
	{"raw", func(s string) string { return s }},
	{"form", url.QueryEscape},
	{"form, lower case", func(s string) string { return lowerEscapes(url.QueryEscape(s)) }},
	{"path", url.PathEscape},
	{"path, lower case", func(s string) string { return lowerEscapes(url.PathEscape(s)) }},
	{"base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
	{"JSON", func(s string) string { return jsonEscape(s, true) }},
	{"HTML", html.EscapeString},
	{"basic", basicOf},
	{"raw basic", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(memoryID + ":" + s)) }},

	// What others than Go write.
	{"JSON of most languages", func(s string) string { return jsonEscape(s, false) }},
	{"JSON of PHP", func(s string) string { return strings.ReplaceAll(jsonEscape(s, false), "/", `\/`) }},
	{"JSON in ASCII", jsonASCII},
	{"HTML of PHP", func(s string) string { return strings.ReplaceAll(html.EscapeString(s), "&#34;", "&quot;") }},
	{"HTML of Python", func(s string) string {
		return strings.NewReplacer("&#34;", "&quot;", "&#39;", "&#x27;").Replace(html.EscapeString(s))
	}},
	{"HTML of html/template", func(s string) string { return strings.ReplaceAll(html.EscapeString(s), "+", "&#43;") }},
	{"XML", func(s string) string {
		return strings.NewReplacer("&#34;", "&quot;", "&#39;", "&apos;").Replace(html.EscapeString(s))
	}},
	{"Latin-1 form", func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%C3%A4", "%E4") }},
	{"repr of Python", func(s string) string { return strings.ReplaceAll(jsonEscape(s, false), "\u00e4", `\xe4`) }},
	{"encodeURIComponent", func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }},
	{"basic as form", func(s string) string { return url.QueryEscape(basicOf(s)) }},
	{"basic as JSON of PHP", func(s string) string { return strings.ReplaceAll(basicOf(s), "/", `\/`) }},
}

func basicOf(secret string) string {
	return base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(memoryID) + ":" + url.QueryEscape(secret)))
}

func jsonEscape(s string, forHTML bool) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(forHTML)
	_ = encoder.Encode(s)
	quoted := strings.TrimSuffix(out.String(), "\n")
	return quoted[1 : len(quoted)-1]
}

func jsonASCII(s string) string {
	var out strings.Builder
	for _, r := range jsonEscape(s, false) {
		if r < utf8.RuneSelf {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// lowerEscapes returns s with the digits of its %XX in lower case.
func lowerEscapes(s string) string {
	return regexp.MustCompile("%..").ReplaceAllStringFunc(s, strings.ToLower)
}

// surfaces returns everything that a program may print of err.
func surfaces(err error) string {
	var out strings.Builder
	show := func(v any) {
		fmt.Fprintf(&out, "%v\n%+v\n%#v\n%s\n%q\n", v, v, v, v, v)
		if text, err := json.Marshal(v); err == nil { // Not with a Response: it holds functions.
			fmt.Fprintf(&out, "%s\n", text)
		}
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		show(e)
		fmt.Fprintln(&out, e.Error())
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Error("failed", "err", err, slog.Group("g", "err", err))
	}

	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return out.String()
	}
	show(*refusal)
	show(refusal.ErrorCode)
	show(refusal.ErrorDescription)
	show(refusal.ErrorURI)
	out.Write(refusal.Body)
	if refusal.Response == nil {
		return out.String()
	}
	show(refusal.Response)
	show(*refusal.Response)
	show(refusal.Response.Header)
	show(refusal.Response.Trailer)
	if dump, err := httputil.DumpResponse(refusal.Response, true); err == nil {
		out.Write(dump)
	}
	if req := refusal.Response.Request; req != nil {
		show(req)
		show(*req)
		show(req.Header)
		show(req.URL)
		if dump, err := httputil.DumpRequest(req, true); err == nil {
			out.Write(dump)
		}
		if req.GetBody != nil {
			if body, err := req.GetBody(); err == nil {
				_, _ = io.Copy(&out, body)
			}
		}
		if req.Body != nil {
			_, _ = io.Copy(&out, req.Body)
		}
	}
	return out.String()
}

func requireHarmless(t *testing.T, text string) {
	t.Helper()
	require.True(t, utf8.ValidString(text))
	for _, r := range text {
		if r != '\n' && r != '\t' {
			require.False(t, unicode.IsControl(r) || unicode.Is(unicode.Cf, r), "%U in %q", r, text)
		}
	}
}
