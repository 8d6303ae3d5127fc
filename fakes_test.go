package clientcredentials

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// This file has the doubles and helpers that several test files share. The servers for
// tests under synctest are in world_test.go.

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

var goodReply = reply{body: `{"access_token":"a","token_type":"Bearer"}`}

func (a reply) response(req *http.Request) *http.Response {
	status := cmp.Or(a.status, http.StatusOK)
	header := http.Header{}
	maps.Copy(header, a.header)
	if a.mediaType != "none" {
		header.Set("Content-Type", cmp.Or(a.mediaType, jsonType))
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

// A tokenEndpoint is a token endpoint in memory. It gives its replies in turn, and repeats
// the last one.
type tokenEndpoint struct {
	mu       sync.Mutex // protects what follows
	replies  []reply
	requests []receivedRequest
}

func (e *tokenEndpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	form, err := formOf(req)
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

// formOf reads the body of a token request, and closes it as a RoundTripper must.
func formOf(req *http.Request) (url.Values, error) {
	defer req.Body.Close()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	return url.ParseQuery(string(body))
}

// config returns a Config whose token endpoint is e.
func (e *tokenEndpoint) config() *Config {
	return configFor(memoryTokenURL, &http.Client{Transport: e})
}

func configFor(tokenURL string, client *http.Client) *Config {
	return &Config{
		ClientID:     memoryID,
		ClientSecret: memorySecret,
		TokenURL:     tokenURL,
		AuthStyle:    oauth2.AuthStyleInHeader,
		HTTPClient:   client,
		Retry:        RetryPolicy{MaxAttempts: 1}, // Retries have their own tests.
	}
}

// client returns a client whose requests all go to e.
func (e *tokenEndpoint) client() *http.Client { return &http.Client{Transport: e} }

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

// tokenOf returns the token or the error that Config.Token makes of one answer.
func tokenOf(t *testing.T, a reply, strict bool) (*oauth2.Token, error) {
	t.Helper()
	conf := newTokenEndpoint(a).config()
	conf.Strict = strict
	token, err := conf.Token(t.Context())
	require.True(t, (token == nil) != (err == nil), "a token or an error")
	return token, err
}

// refusalFor returns the error of a token request that is answered with a.
func refusalFor(t *testing.T, a reply, change ...func(conf *Config)) *oauth2.RetrieveError {
	t.Helper()
	conf := newTokenEndpoint(a).config()
	for _, change := range change {
		change(conf)
	}
	_, err := conf.Token(t.Context())
	refusal, ok := err.(*oauth2.RetrieveError)
	require.True(t, ok, "%T: %v", err, err)
	return refusal
}

// requireFault checks that err is a *ResponseError for the answer a, and that its text is
// text and a description of the answer.
func requireFault(t *testing.T, err error, a reply, text string) {
	t.Helper()
	require.IsType(t, (*ResponseError)(nil), err)
	fault := err.(*ResponseError)
	mediaType := cmp.Or(a.mediaType, jsonType)
	require.Equal(t, cmp.Or(a.status, http.StatusOK), fault.StatusCode)
	require.Equal(t, mediaType, fault.MediaType)
	require.Equal(t, len(a.body), fault.Size)
	require.EqualError(t, err, fmt.Sprintf("%s (status %d, %s, %d bytes)", text, fault.StatusCode, mediaType, len(a.body)))
}

func gzipped(text string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, text) // A Buffer returns no errors.
	_ = w.Close()
	return out.String()
}

// modes runs test without and with Config.Strict.
func modes(t *testing.T, test func(t *testing.T, strict bool)) {
	t.Run("default", func(t *testing.T) { test(t, false) })
	t.Run("strict", func(t *testing.T) { test(t, true) })
}

// authMethods returns how each request was authenticated. A client must not use two methods
// in one request, RFC 6749, Section 2.3.
func authMethods(t *testing.T, requests []receivedRequest) (methods []string) {
	t.Helper()
	for _, req := range requests {
		header, params := req.header.Get("Authorization") != "", req.form.Has("client_secret") || req.form.Has("client_id")
		require.True(t, header != params, "one method in a request")
		methods = append(methods, map[bool]string{true: "header", false: "params"}[header])
	}
	return methods
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answering returns a context whose client answers every token request with body, and a
// count of the requests. Each % in body becomes the number of the request.
func answering(ctx context.Context, body string) (context.Context, *atomic.Int32) {
	requests := new(atomic.Int32)
	client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		number := fmt.Sprint(requests.Add(1))
		return reply{body: strings.ReplaceAll(body, "%", number)}.response(req), nil
	})}
	return context.WithValue(ctx, oauth2.HTTPClient, client), requests
}

// serve starts a token endpoint on the loopback interface and returns a Config with its
// address.
func serve(t *testing.T, handler http.HandlerFunc) *Config {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	conf := configFor(server.URL+"/token", server.Client())
	conf.Retry = RetryPolicy{AttemptTimeout: time.Minute, TotalTimeout: 2 * time.Minute} // No test depends on the speed of the machine.
	return conf
}

// serveRaw is like serve, for answers that the server of net/http wouldn't send. The
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
	mu    sync.Mutex
	hops  []string // host and Authorization of each request
	trace []*http.Request

	answered func(*http.Request) *http.Request // what resp.Request is; nil: the request
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
	if r.answered != nil {
		resp.Request = r.answered(req)
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

// zeros is a body without end. It counts how much of it is read.
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

// canaryKey is a key that TestCanary searches for in everything that is printed.
var canaryKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

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

// functionsOf returns the fields of o that are functions, by name.
func functionsOf(o *Observer) map[string]reflect.Value {
	fields := make(map[string]reflect.Value)
	all := reflect.ValueOf(o).Elem()
	for i := range all.NumField() {
		if field := all.Field(i); field.Kind() == reflect.Func {
			fields[all.Type().Field(i).Name] = field
		}
	}
	return fields
}

// eventFields returns the fields of o that take an event.
func eventFields(o *Observer) map[string]reflect.Value {
	fields := functionsOf(o)
	delete(fields, "TraceRefresh")
	return fields
}

// observe returns an Observer whose functions pass the event to call. It sets every field
// that takes an event, even those that are added later.
func observe(call func(info any)) *Observer {
	o := new(Observer)
	for _, field := range eventFields(o) {
		field.Set(reflect.MakeFunc(field.Type(), func(args []reflect.Value) []reflect.Value {
			call(args[0].Interface())
			return nil
		}))
	}
	return o
}

// tell calls the function of o that takes such an event.
func tell(t *testing.T, o *Observer, info any) {
	t.Helper()
	for _, field := range eventFields(o) {
		require.False(t, field.IsNil(), "a function is nil")
		if field.Type().In(0) == reflect.TypeOf(info) {
			field.Call([]reflect.Value{reflect.ValueOf(info)})
			return
		}
	}
	t.Fatalf("no function takes a %T", info)
}

const plainSecret = "S3cretCanary0123456789"

func inJSON(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(quoted)
}

// requireHarmless checks that text can't change a terminal or begin a line in a log.
func requireHarmless(t *testing.T, text string) {
	t.Helper()
	require.True(t, utf8.ValidString(text))
	for _, r := range text {
		if r != '\n' && r != '\t' {
			require.False(t, unicode.IsControl(r) || unicode.Is(unicode.Cf, r), "%U in %q", r, text)
		}
	}
}

// surfaces returns everything that a program may print of err.
func surfaces(err error) string {
	p := newPrinter()
	p.showError(err)
	return p.out.String()
}

// A printer prints values in every way that a program may, and keeps the output.
type printer struct {
	out   strings.Builder
	types map[string]bool // the types of this package that were printed
	shown map[error]bool  // errors that need not be shown again

	mu    sync.Mutex // protects infos
	infos []any      // the events that the Observer received
}

func newPrinter() *printer {
	return &printer{types: make(map[string]bool), shown: make(map[error]bool)}
}

// show prints v in every way.
func (p *printer) show(v any) {
	p.print(v)
	p.printHidden(v)
	p.log(v)
	p.callMethods(v)
	if text, err := json.Marshal(v); err == nil { // A value with a function in it has no JSON.
		p.out.Write(text)
	}
	p.walk(reflect.ValueOf(v), make(map[uintptr]bool))
}

func (p *printer) print(v any) {
	p.note(reflect.TypeOf(v))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%+q", "%x", "%X", "%d"} {
		for _, v := range []any{v, []any{v}, struct{ V any }{v}} {
			fmt.Fprintf(&p.out, verb+"\n", v)
		}
	}
}

// printHidden prints v as an unexported field: fmt doesn't call the methods of such a field.
// A program that prints a Config in this way sees all fields. They are those of upstream, so
// nothing can be done about it.
func (p *printer) printHidden(v any) {
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		fmt.Fprintf(&p.out, verb+"\n", struct{ v any }{v})
	}
}

func (p *printer) log(v any) {
	for _, handler := range []slog.Handler{slog.NewTextHandler(&p.out, nil), slog.NewJSONHandler(&p.out, nil)} {
		slog.New(handler).With("with", v).Error("failed", "v", v, slog.Group("g", "v", v))
	}
}

// callMethods calls the methods of v that describe it.
func (p *printer) callMethods(v any) {
	value := reflect.ValueOf(v)
	for i := range value.NumMethod() {
		method := value.Method(i).Type()
		if method.NumIn() != 0 || method.NumOut() != 1 {
			continue
		}
		if out := method.Out(0); out.Kind() == reflect.String || out == reflect.TypeFor[slog.Value]() {
			fmt.Fprintln(&p.out, value.Method(i).Call(nil)[0])
		}
	}
}

// walk writes the texts in v that another package can reach through exported fields and
// pointers. It leaves out a Config, whose fields are the program's own.
func (p *printer) walk(v reflect.Value, visited map[uintptr]bool) {
	if !v.IsValid() {
		return
	}
	p.note(v.Type())
	switch v.Kind() {
	case reflect.String:
		fmt.Fprintln(&p.out, v.String())
	case reflect.Pointer:
		if !visited[v.Pointer()] {
			visited[v.Pointer()] = true
			p.walk(v.Elem(), visited)
		}
	case reflect.Interface:
		p.walk(v.Elem(), visited)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[Config]() {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				p.walk(v.Field(i), visited)
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(&p.out, "%s\n", v.Bytes())
			return
		}
		for i := range v.Len() {
			p.walk(v.Index(i), visited)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			p.walk(key, visited)
			p.walk(v.MapIndex(key), visited)
		}
	default:
	}
}

func (p *printer) note(t reflect.Type) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.PkgPath() == reflect.TypeFor[Config]().PkgPath() {
		p.types[t.Name()] = true
	}
}

// showError prints err and all that it wraps, once: events and calls share their errors.
func (p *printer) showError(err error) {
	if err == nil {
		return
	}
	if reflect.TypeOf(err).Kind() == reflect.Pointer {
		if p.shown[err] {
			return
		}
		p.shown[err] = true
	}
	p.show(err)
	switch err := any(err).(type) {
	case *oauth2.RetrieveError:
		p.showRefusal(err)
	case interface{ Unwrap() error }:
		p.showError(err.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			p.showError(err)
		}
	}
	// An error may have an As method and no Unwrap.
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		p.showError(refusal)
	}
	var quoted *requestError
	if errors.As(err, &quoted) {
		p.showError(quoted)
	}
}

// showRefusal prints refusal, and the response and the request in it.
func (p *printer) showRefusal(refusal *oauth2.RetrieveError) {
	p.show(*refusal)
	resp := refusal.Response
	if resp == nil || resp.Request == nil {
		return
	}
	req := resp.Request
	p.show(*resp) // Behind a pointer they look the same.
	p.show(*req)
	p.callMethods(req)
	dump, _ := httputil.DumpResponse(resp, true)
	p.out.Write(dump)
	dump, _ = httputil.DumpRequest(req, true)
	p.out.Write(dump)
	if req.GetBody != nil {
		if body, err := req.GetBody(); err == nil {
			_, _ = io.Copy(&p.out, body)
		}
	}
}

// A requestError is an error that shows everything it knows.
type requestError struct {
	Request *http.Request
	Dump    string
}

func (e *requestError) Error() string { return "failed: " + e.Dump }
