package clientcredentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// TestCanary puts a canary into everything that may hold a secret: a text that appears
// nowhere else. Servers and RoundTrippers repeat the canaries in every place that they can
// write to. Then the test searches for them in everything that a program may print.

const (
	canarySecret     = "SecretCanary/5&Kf+ w<2>=\"Z\"~%41-9xQ"
	canarySealingKey = "SealingCanary_k3Y_of_32_bytes_or_more"
	canaryAssertion  = "eyJhbGciOiJub25lIn0.AssertionCanaryYm9keQ.8sPz4-Lk_Tq"
	canaryPassword   = "PasswordCanary&7/b+R u<1>~%2F-3nM"
	canaryQuery      = "QueryCanary-4hJ_w8Vd.Bc6"
	canaryToken      = "TokenCanary.e5Gy_t2Wq-7LmX"
	canaryRefresh    = "RefreshCanary.k9Np_c3Zs-6FvD"
	canaryIDToken    = "IDTokenCanary.r4Hb_j1Xo-8PiS"
)

// canarySetups are the ways to authenticate. secrets are those that apply puts into c.
var canarySetups = []struct {
	name    string
	apply   func(c *Config)
	secrets []string
}{
	{"client_secret_basic", func(c *Config) {
		c.ClientSecret, c.AuthStyle = canarySecret, oauth2.AuthStyleInHeader
	}, []string{canarySecret}},
	{"client_secret_post", func(c *Config) {
		c.ClientSecret, c.AuthStyle = canarySecret, oauth2.AuthStyleInParams
	}, []string{canarySecret}},
	{"auto-detect", func(c *Config) { c.ClientSecret = canarySecret }, []string{canarySecret}},
	{"client_assertion in EndpointParams", func(c *Config) {
		c.AuthStyle = oauth2.AuthStyleInParams
		c.EndpointParams = url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {canaryAssertion},
		}
	}, []string{canaryAssertion}},
	{"password in EndpointParams", func(c *Config) {
		c.ClientSecret = canarySecret
		c.EndpointParams = url.Values{"grant_type": {"password"}, "username": {"u"}, "password": {canaryPassword}}
	}, []string{canarySecret, canaryPassword}},
	{"assertion by a ClientAuth", func(c *Config) {
		c.ClientSecret = canarySecret // It doesn't leave the program.
		c.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
			attempt.Form.Set("client_assertion", canaryAssertion)
			return nil
		})
	}, []string{canaryAssertion}},
	{"raw Basic by a ClientAuth", func(c *Config) {
		c.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
			attempt.Header.Set("Authorization", "Basic "+redact.BasicCredentials(attempt.ClientID, canarySecret))
			return nil
		})
	}, []string{canarySecret}},
	{"a bearer token by a ClientAuth", func(c *Config) {
		c.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
			attempt.Header.Set("Authorization", "Bearer "+canaryAssertion)
			return nil
		})
	}, []string{canaryAssertion}},
	{"an assertion by a Grant", func(c *Config) {
		grant := newGrant()
		grant.more, grant.credential = url.Values{"assertion": {canaryAssertion}}, "key"
		c.ClientID, c.Grant = "", grant
	}, []string{canaryAssertion}},
	{"a token exchange", func(c *Config) {
		grant := newGrant()
		grant.grantType, grant.more = exchangeType, url.Values{"subject_token": {canaryAssertion}, "actor_token": {canaryPassword}}
		c.ClientSecret, c.Grant = canarySecret, grant
	}, []string{canarySecret, canaryAssertion, canaryPassword}},
	{"DPoP", func(c *Config) {
		c.ClientSecret = canarySecret
		c.DPoP = canaryKey
	}, []string{canarySecret}},
	{"Store", func(c *Config) {
		c.ClientSecret = canarySecret
		ring, err := NewKeyring([]byte(canarySealingKey))
		if err != nil {
			panic(err)
		}
		c.Store = Seal(new(leakyStore), ring)
	}, []string{canarySecret}},
}

// A leakyStore puts everything that it knows into its errors.
type leakyStore struct{ claim tokenstore.Claim }

func (s *leakyStore) Acquire(context.Context, string, string, string, time.Duration) (tokenstore.Claim, error) {
	return tokenstore.Claim{State: tokenstore.ClaimLead}, nil
}

func (s *leakyStore) Renew(_ context.Context, key, owner string, _ time.Duration) error {
	return fmt.Errorf("%q %q", key, owner)
}

func (s *leakyStore) Publish(_ context.Context, key, owner string, record tokenstore.Record, _ time.Duration) error {
	s.claim = tokenstore.Claim{State: tokenstore.ClaimHit, Record: record}
	return fmt.Errorf("%q %q %q", key, owner, record)
}

func (s *leakyStore) Abort(_ context.Context, key, owner string, note []byte, _ time.Duration) error {
	return fmt.Errorf("%q %q %q", key, owner, note)
}

func (s *leakyStore) Invalidate(_ context.Context, key, version string) error {
	return fmt.Errorf("%q %q", key, version)
}

// canaryTokens is a token response. The library prints no id_token either, although programs
// find it in Token.Extra.
var canaryTokens = fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"id_token":%q,"token_type":"Bearer","expires_in":3600}`,
	canaryToken, canaryRefresh, canaryIDToken)

// leakyAnswers repeat the request, or contain the tokens of a good answer.
var leakyAnswers = map[string]http.Handler{
	"page": hostile.Echo(500),
	"text": repeating(func(dump string) http.Handler { return hostile.Text(401, "text/plain", dump) }),
	"description": repeating(func(dump string) http.Handler {
		return hostile.JSON(400, `{"error":"invalid_client","error_description":`+inJSON(dump)+`}`)
	}),
	"code": repeating(func(dump string) http.Handler { return hostile.JSON(400, `{"error":`+inJSON(dump)+`}`) }),
	"code with 200": repeating(func(dump string) http.Handler {
		return hostile.JSON(200, `{"error":`+inJSON(dump)+`,"access_token":"`+canaryToken+`","refresh_token":"`+canaryRefresh+`"}`)
	}),
	"uri": repeating(func(dump string) http.Handler {
		return hostile.JSON(400, `{"error":"x","error_uri":`+inJSON("https://auth.example/?"+url.QueryEscape(dump))+`}`)
	}),
	"form": repeating(func(dump string) http.Handler {
		return hostile.Text(400, formType, "error=invalid_client&error_description="+url.QueryEscape(dump))
	}),
	"headers": repeating(func(dump string) http.Handler {
		return withHeaders(hostile.Text(401, "application/x-"+url.PathEscape(oneLine(dump)), ""), oneLine(dump),
			"WWW-Authenticate", "X-Echo", "Set-Cookie", "Retry-After", "Date", "Content-Location", "Link", "Via")
	}),
	"headers of 200": repeating(func(dump string) http.Handler {
		return withHeaders(hostile.Text(200, oneLine(dump), "<p>"+dump), oneLine(dump), "X-Echo")
	}),
	"redirect": repeating(func(dump string) http.Handler {
		query := url.QueryEscape(dump)
		return hostile.Redirect(307, "https://u:"+query+"@other.example/"+url.PathEscape(dump)+"?"+query+"#"+query)
	}),
	"bad redirect": repeating(func(dump string) http.Handler {
		return hostile.Redirect(302, "https://[other.example/"+url.QueryEscape(dump))
	}),
	"status line": hostile.Raw(func(req *http.Request) string {
		return "HTTP/1.1 401 " + url.QueryEscape(hostile.Dump(req)) + "\r\nContent-Length: 0\r\n\r\n"
	}),
	"bad status line": hostile.Raw(func(req *http.Request) string {
		return url.QueryEscape(hostile.Dump(req)) + "\r\n\r\n"
	}),
	"bad header": hostile.Raw(func(req *http.Request) string {
		return "HTTP/1.1 401 Unauthorized\r\n" + url.QueryEscape(hostile.Dump(req)) + "\r\n\r\n"
	}),
	"no HTTP": hostile.Raw(hostile.Dump),
	"cut": hostile.Raw(func(req *http.Request) string {
		return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 99999\r\n\r\n" + hostile.Dump(req)
	}),
	"trailer": hostile.Raw(func(req *http.Request) string {
		return "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n0\r\nX-Echo: " + url.QueryEscape(hostile.Dump(req)) + "\r\n\r\n"
	}),

	// Each of these is almost a good answer.
	"HTML with 200":       hostile.Echo(200),
	"refused with tokens": hostile.JSON(403, canaryTokens[:len(canaryTokens)-1]+`,"id_token":null}`),
	"token in a list":     hostile.JSON(200, `{"access_token":["`+canaryToken+`"],"refresh_token":"`+canaryRefresh+`"}`),
	"token with a break":  hostile.JSON(200, `{"access_token":"`+canaryToken+`\n","refresh_token":"`+canaryRefresh+`"}`),
	"tokens exchanged":    hostile.JSON(200, `{"access_token":"x","token_type":"`+canaryToken+`","expires_in":"`+canaryRefresh+`"}`),
	"token in words":      hostile.JSON(200, `{"error":{"message":"no token","access_token":"`+canaryToken+`","value":"`+canaryToken+`"},"refresh_token":"`+canaryRefresh+`"}`),
	"token twice":         hostile.JSON(200, `{"access_token":"`+canaryToken+`","access_token":"`+canaryRefresh+`"}`),
	"cut JSON":            hostile.JSON(200, canaryTokens[:len(canaryTokens)-2]),
	"bad form":            hostile.Text(200, formType, "access_token="+canaryToken+"&expires_in="+canaryRefresh),
	"partial":             hostile.JSON(206, canaryTokens),
}

// repeating gives the answer that answer makes of a dump of the request.
func repeating(answer func(dump string) http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { answer(hostile.Dump(req)).ServeHTTP(w, req) })
}

func withHeaders(answer http.Handler, value string, names ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for _, name := range names {
			w.Header().Set(name, value)
		}
		answer.ServeHTTP(w, req)
	})
}

func oneLine(dump string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(dump) }

// leakyTransports are RoundTrippers that fail, and repeat the request in their error.
var leakyTransports = map[string]roundTripFunc{
	"error": func(req *http.Request) (*http.Response, error) {
		return nil, errors.New("cannot send " + hostile.Dump(req))
	},
	"wrapped error": func(req *http.Request) (*http.Response, error) {
		return nil, errors.Join(io.EOF, fmt.Errorf("cannot send: %w", &requestError{req, hostile.Dump(req)}))
	},
	"url.Error": func(req *http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Post", URL: req.URL.String(), Err: &requestError{req, hostile.Dump(req)}}
	},
	"error of the body": func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(failingReader{&requestError{req, hostile.Dump(req)}})}, nil
	},
	"panic with a string":  func(req *http.Request) (*http.Response, error) { panic(hostile.Dump(req)) },
	"panic with an error":  func(req *http.Request) (*http.Response, error) { panic(&requestError{req, hostile.Dump(req)}) },
	"panic with a struct":  func(req *http.Request) (*http.Response, error) { panic(requestError{req, hostile.Dump(req)}) },
	"panic with a request": func(req *http.Request) (*http.Response, error) { panic(req) },
}

func TestCanary(t *testing.T) {
	var mu sync.Mutex // protects printed
	printed := make(map[string]bool)
	t.Run("setups", func(t *testing.T) {
		for _, setup := range canarySetups {
			secrets := newHalves(append([]string{canaryQuery, canaryToken, canaryRefresh, canarySecret, canarySealingKey, canaryKey.D.String(), canaryKey.D.Text(16)}, setup.secrets...))
			sub := func(name string, test func(t *testing.T, p *printer, c *Config)) {
				t.Run(setup.name+"/"+name, func(t *testing.T) {
					t.Parallel()
					p := newPrinter()
					c := &Config{ClientID: "id", TokenURL: "http://auth.example/token?key=" + url.QueryEscape(canaryQuery), Retry: RetryPolicy{MaxAttempts: 1}}
					setup.apply(c)
					c.Observer = p.observer()
					test(t, p, c)
					p.showInfos(t)
					p.requireNone(t, secrets)
					mu.Lock()
					defer mu.Unlock()
					for name := range p.types {
						printed[name] = true
					}
				})
			}
			for name, answer := range leakyAnswers {
				sub(name, func(t *testing.T, p *printer, c *Config) {
					c.HTTPClient = namedHosts(map[string]*hostile.Server{"auth.example:80": hostile.Start(t, answer)})
					_, err := c.Token(t.Context())
					require.Error(t, err)
					p.showError(err)
					p.showSource(t, c, false)
				})
			}
			for name, transport := range leakyTransports {
				sub(name, func(t *testing.T, p *printer, c *Config) {
					c.HTTPClient = &http.Client{Transport: transport}
					p.showSource(t, c, false)
				})
			}
			sub("attempt", func(t *testing.T, p *printer, c *Config) {
				c.HTTPClient = &http.Client{Transport: leakyTransports["error"]}
				inner := c.ClientAuth
				c.ClientAuth = authFunc(func(ctx context.Context, attempt *Attempt) error {
					if inner != nil {
						_ = inner.Authenticate(ctx, attempt)
					}
					attempt.Form.Set("client_secret", canarySecret)
					for _, v := range []any{attempt, *attempt} {
						p.print(v)
						p.log(v)
						p.callMethods(v)
						if text, err := json.Marshal(v); err == nil {
							p.out.Write(text)
						}
					}
					return errors.New("not sent")
				})
				p.showSource(t, c, false)
			})
			sub("success", func(t *testing.T, p *printer, c *Config) {
				tokens := canaryTokens
				if c.DPoP != nil {
					tokens = strings.Replace(tokens, "Bearer", "DPoP", 1)
				}
				auth := hostile.Start(t, hostile.JSON(200, tokens))
				other := hostile.Start(t, hostile.Echo(200))
				// The API repeats the token.
				api := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					if req.URL.Path == "/away" {
						hostile.Redirect(307, "http://other.example/?"+url.QueryEscape(hostile.Dump(req))).ServeHTTP(w, req)
						return
					}
					w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="`+req.Header.Get("Authorization")+`"`)
					hostile.Echo(401).ServeHTTP(w, req)
				}))
				c.HTTPClient = namedHosts(map[string]*hostile.Server{"auth.example:80": auth, "api.example:80": api, "other.example:80": other})
				p.showSource(t, c, true)
				require.NotEmpty(t, api.Find(canaryToken))
				for _, secret := range setup.secrets {
					require.NotEmpty(t, auth.Find(secret))
				}
			})
		}
	})
	for _, name := range exportedTypes(t) {
		require.True(t, printed[name], "%s is exported, but TestCanary prints no value of that type: add one", name)
	}
}

// namedHosts returns a client that connects to servers by host and port.
func namedHosts(servers map[string]*hostile.Server) *http.Client {
	transport := hostile.Client().Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		s := servers[addr]
		if s == nil {
			return nil, fmt.Errorf("nothing is at %s", addr)
		}
		return new(net.Dialer).DialContext(ctx, network, strings.SplitAfter(s.URL, "://")[1])
	}
	// The Transport itself would be printed while it is in use, which is a data race.
	return &http.Client{Transport: roundTripFunc(transport.RoundTrip)}
}

// showSource uses a Source, and prints it and what belongs to it.
func (p *printer) showSource(t *testing.T, c *Config, succeeds bool) {
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient)
	source, client, transport := c.Source(ctx), c.Client(ctx), c.Transport(ctx)
	target := Target{Params: url.Values{"password": {canaryPassword}}}
	all := []any{source, source.Status(), client, client.Transport, transport, *transport, c.TokenSource(ctx), c.Observer, c.Retry, new(ServerMetadata), new(ResourceMetadata), source.For(target)}
	if c.Store != nil {
		all = append(all, c.Store, c.Store.keyring, *c.Store.keyring)
	}
	p.showConfig(t, c)
	p.print(target)
	p.print(&target)
	p.print(Challenge{Target: target})
	p.log(target)
	for range 2 {
		got, err := source.Token()
		p.showError(err)
		require.Equal(t, succeeds, err == nil, err)
		all[1] = source.Status()
		for _, client := range []*http.Client{client, {Transport: transport}} {
			for _, path := range []string{"", "away"} {
				resp, err := client.Get("http://api.example/" + path)
				require.Equal(t, succeeds, err == nil, err)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				p.showError(err)
			}
		}
		if c.Store != nil {
			claim := c.Store.store.(*leakyStore).claim
			all = append(all, claim, claim.Record)
		}
		for _, v := range all {
			p.show(v)
		}
		// With an unsuitable verb, fmt follows the pointer.
		fmt.Fprintf(&p.out, "%s %d\n", struct{ v any }{source}, struct{ v any }{source})
		if !succeeds {
			break
		}
		source.Invalidate(got) // Now the Source knows a previous token, too.
	}
	p.showConfig(t, c)
}

// showConfig prints c. The JSON of a Config contains the secrets in its fields, see
// docs/compatibility.md, but nothing from the token endpoint.
func (p *printer) showConfig(t *testing.T, c *Config) {
	type embedding struct {
		*Config
		Name string
	}
	p.print(*c)
	p.print(c)
	p.print(embedding{c, "x"})
	p.log(*c)
	p.log(c)
	p.log(embedding{c, "x"})
	p.callMethods(c)
	p.printHidden(c)

	text, err := json.Marshal(c)
	require.NoError(t, err)
	var back Config
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, c.ClientSecret, back.ClientSecret)
	require.Equal(t, c.EndpointParams, back.EndpointParams)
	for _, secret := range []string{canaryToken, canaryRefresh, canaryIDToken} {
		require.Empty(t, hostile.Find(string(text), secret))
	}
}

// observer returns an Observer that keeps its events for showInfos.
func (p *printer) observer() *Observer {
	return observe(func(info any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.infos = append(p.infos, info)
	})
}

// showInfos prints the events of the Observer, and what SlogObserver logs of them. It is
// called at the end, because a program may not use the Response in an error, for instance to
// dump it, while another goroutine does.
func (p *printer) showInfos(t *testing.T) {
	p.mu.Lock()
	infos := p.infos
	p.mu.Unlock()
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	for _, info := range infos {
		p.show(info)
		for _, err := range errorsOf(info) {
			p.showError(err)
		}
		for _, handler := range []slog.Handler{slog.NewTextHandler(&p.out, options), slog.NewJSONHandler(&p.out, options)} {
			tell(t, SlogObserver(slog.New(handler)), info)
		}
	}
}

// errorsOf returns the errors among the fields of info.
func errorsOf(info any) (errs []error) {
	v := reflect.ValueOf(info)
	for i := range v.NumField() {
		if err, ok := v.Field(i).Interface().(error); ok {
			errs = append(errs, err)
		}
	}
	return errs
}

// halves are the halves of secrets, in all forms in which they may be printed.
type halves struct {
	forms []hostile.Form
	all   *strings.Replacer // removes them
}

func newHalves(secrets []string) (h halves) {
	var pairs []string
	for _, secret := range secrets {
		for _, part := range []string{secret[:len(secret)/2], secret[len(secret)/2:]} {
			for _, form := range hostile.Forms(part) {
				h.forms = append(h.forms, form)
				pairs = append(pairs, form.Text, "")
			}
		}
	}
	h.all = strings.NewReplacer(pairs...)
	return h
}

// requireNone fails the test if there is half a secret in what was printed.
func (p *printer) requireNone(t *testing.T, secrets halves) {
	t.Helper()
	text := p.out.String()
	require.NotEmpty(t, text)
	// One search for all of them is fast, and finds nothing.
	if rest, _ := secrets.all.WriteString(io.Discard, text); rest == len(text) {
		return
	}
	for _, form := range secrets.forms {
		if at := strings.Index(text, form.Text); at >= 0 {
			t.Errorf("%q is in what was printed, %s: …%q…", form.Text, form.Name, text[max(at-300, 0):min(at+len(form.Text)+100, len(text))])
			return
		}
	}
}

// exportedTypes returns the names of the types that this package exports.
func exportedTypes(t *testing.T) (names []string) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(node ast.Node) bool {
			if spec, ok := node.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				if _, isInterface := spec.Type.(*ast.InterfaceType); !isInterface {
					names = append(names, spec.Name.Name)
				}
			}
			return true
		})
	}
	require.Contains(t, names, "Config")
	return names
}
