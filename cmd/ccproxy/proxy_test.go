package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// TestX2_WhatReachesTheUpstream checks the path, the body and the header of a request.
func TestX2_WhatReachesTheUpstream(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header()["Set-Cookie"] = []string{"a=b"}
		rw.Header().Set("Access-Control-Allow-Origin", "*")
		rw.Header().Set("Ccproxy-Error", "502")
		rw.Header().Set("X-Api", "yes")
		fmt.Fprintf(rw, "%s %s %s", r.Method, r.RequestURI, body)
	}, nil)
	for _, spelling := range []string{"Authorization", "authorization", "AUTHORIZATION", "aUTHORIZATION"} {
		req := w.request("POST", "/api/a%2Fb/c?x=1;y=%zz&access=2", "hello")
		req.Header[spelling] = []string{"Bearer own"}
		for name, value := range map[string]string{
			"Proxy-Authorization": "Basic own", "DPoP": "own", "Cookie": "own=1", "Origin": w.proxy, "Referer": w.proxy + "/own",
			"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=own",
			"Connection": "Authorization, X-Hop, close", "X-Hop": "own", "Keep-Alive": "own", "Te": "own", "X-Kept": "yes",
		} {
			req.Header.Set(name, value)
		}
		a := w.do(req)
		assert.Equal(t, "POST /v1/a%2Fb/c?x=1;y=%zz&access=2 hello", a.body)
		assert.Equal(t, "yes", a.Header.Get("X-Api"))
		for _, name := range []string{"Set-Cookie", "Access-Control-Allow-Origin", "Ccproxy-Error"} {
			assert.NotContains(t, a.Header, name)
		}
	}
	for _, r := range w.API.Requests() {
		assert.Equal(t, "yes", r.Header.Get("X-Kept"))
		assert.Len(t, r.Header["Authorization"], 1)
		assert.NotContains(t, fmt.Sprint(r.Header), "own")
		for name := range r.Header {
			assert.NotContains(t, []string{"Proxy-Authorization", "Dpop", "Cookie", "Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "X-Hop", "Keep-Alive", "Te", "Forwarded", "X-Forwarded-For"}, name)
		}
	}
	assert.Empty(t, w.API.Violations())
	assert.Equal(t, 1, w.Auth.TokenRequests())
}

// TestX2_Targets checks that each route has its own token, DPoP included.
func TestX2_Targets(t *testing.T) {
	w := newWorld(t, nil, func(w *world, s dict) {
		w.write("key.pem", testkit.KeyPEM(testkit.NewKey("ES256")))
		client := s["clients"].(dict)["test"].(dict)
		client["dpop_key_file"], client["scopes"], client["auth_method"] = "key.pem", "common", "client_secret_post"
		a, b, c := w.route("/api/a/"), w.route("/api/"), w.route("/")
		a["scopes"], b["resource"] = "one two", []string{"https://r.example/", "https://s.example/"}
		c["audience"], c["host"] = "aud", "Api.Localhost"
		s["routes"] = []dict{b, a, c}
	})
	for _, path := range []string{"/api/x", "/api/a/x", "/api/a"} {
		assert.Equal(t, http.StatusOK, w.get(path).StatusCode, path)
	}
	req := w.request("GET", "/api/x", "")
	req.Host = "API.localhost"
	assert.Equal(t, http.StatusOK, w.do(req).StatusCode)
	assert.Equal(t, http.StatusNotFound, w.get("/b/").StatusCode)
	var asked []string
	for _, r := range w.Auth.Requests() {
		asked = append(asked, fmt.Sprint(r.Form["scope"], r.Form["resource"], r.Form["audience"]))
	}
	assert.Equal(t, []string{"[common] [https://r.example/ https://s.example/] []", "[one two] [] []", "[common] [] [aud]"}, asked)
	assert.Empty(t, w.API.Violations())
	assert.Empty(t, w.Auth.Violations())
	for _, r := range w.API.Requests() {
		assert.True(t, strings.HasPrefix(r.Header.Get("Authorization"), "DPoP "))
	}
}

// TestX3_Hosts checks which values of Host are accepted.
func TestX3_Hosts(t *testing.T) {
	w := newWorld(t, nil, func(w *world, s dict) {
		s["hosts"] = []string{"Sidecar:99"}
		r := w.route("/")
		r["host"] = "api.localhost"
		s["routes"] = append(s["routes"].([]dict), r)
	})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(w.proxy, "http://"))
	require.NoError(t, err)
	for host, status := range map[string]int{
		"127.0.0.1:" + port: 200, "localhost:" + port: 200, "LOCALHOST:" + port: 200, "[::1]:" + port: 200,
		"api.localhost": 200, "api.localhost:" + port: 200, "sidecar:99": 200,
		"evil.example": 421, "evil.example:" + port: 421, "127.0.0.1": 421, "127.0.0.1:1": 421, "localhost.evil.example:" + port: 421,
		"127.0.0.1.evil.example:" + port: 421, "127.0.0.2:" + port: 421, "api.localhost:1": 421, "sidecar:" + port: 421,
		"[::ffff:127.0.0.1]:" + port: 421, "localhost.:" + port: 421, "0.0.0.0:" + port: 421,
	} {
		req := w.request("GET", "/api/", "")
		req.Host = host
		assert.Equal(t, status, w.do(req).StatusCode, host)
	}
	assert.Len(t, w.API.Requests(), 7)
}

// TestX3_NotAForwardProxy checks that nobody can reach another server through the proxy, and
// that no method returns the token.
func TestX3_NotAForwardProxy(t *testing.T) {
	w := newWorld(t, nil, nil)
	for text, status := range map[string]string{
		"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443":                  "421",
		"CONNECT HOST HTTP/1.1\r\nHost: HOST":                                          "405",
		"CONNECT evil.example:443 HTTP/1.1\r\nHost: HOST":                              "421",
		"GET http://evil.example/api/ HTTP/1.1\r\nHost: HOST":                          "421",
		"GET http://evil.example/api/ HTTP/1.1\r\nHost: evil.example":                  "421",
		"GET https://HOST/api/ HTTP/1.1\r\nHost: HOST":                                 "405",
		"GET ftp://HOST/api/ HTTP/1.1\r\nHost: HOST":                                   "405",
		"GET http://HOST@evil.example/api/ HTTP/1.1\r\nHost: HOST":                     "421",
		"TRACE /api/ HTTP/1.1\r\nHost: HOST":                                           "405",
		"TRACK /api/ HTTP/1.1\r\nHost: HOST":                                           "405",
		"trace /api/ HTTP/1.1\r\nHost: HOST":                                           "405",
		"Trace /api/ HTTP/1.1\r\nHost: HOST":                                           "405",
		"connect /api/ HTTP/1.1\r\nHost: HOST":                                         "405",
		"track /api/ HTTP/1.1\r\nHost: HOST":                                           "405",
		"OPTIONS * HTTP/1.1\r\nHost: HOST":                                             "404",
		"OPTIONS * HTTP/1.1\r\nHost: evil.example":                                     "421",
		"GET /api/ HTTP/1.0":                                                           "421",
		"GET /api/ HTTP/1.1\r\nHost: HOST\r\nX-Large: " + strings.Repeat("x", 100_000): "431",
	} {
		assert.Contains(t, firstLine(w.raw(text+"\r\nConnection: close\r\n\r\n")), " "+status+" ", text[:min(40, len(text))])
	}
	assert.Empty(t, w.API.Requests())
	assert.Contains(t, firstLine(w.raw("GET http://HOST/api/ HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")), " 200 ")
}

func firstLine(text string) string { line, _, _ := strings.Cut(text, "\r\n"); return line }

// TestX4_WebPages checks that a page in a browser can't use the proxy.
func TestX4_WebPages(t *testing.T) {
	w := newWorld(t, nil, nil)
	const site, page = "Sec-Fetch-Site", "Origin"
	for _, tt := range []struct {
		method, name string
		values       []string
		status       int
	}{
		{"GET", site, []string{"cross-site"}, 403},
		{"GET", site, []string{"same-site"}, 403}, // Another port of localhost.
		{"GET", site, []string{"none", "cross-site"}, 403},
		{"GET", site, []string{"Same-Origin"}, 403},
		{"GET", site, []string{"none"}, 200},
		{"GET", site, []string{"same-origin"}, 200},
		{"POST", page, []string{"http://evil.example"}, 403},
		{"POST", page, []string{"null"}, 403},
		{"POST", page, []string{""}, 403},
		{"POST", page, []string{"http://localhost:1"}, 403},
		{"POST", page, []string{strings.Replace(w.proxy, "http:", "https:", 1)}, 403},
		{"POST", page, []string{w.proxy + ".evil.example"}, 403},
		{"POST", page, []string{w.proxy, "http://evil.example"}, 403},
		{"OPTIONS", page, []string{"http://evil.example"}, 403},
		{"POST", page, []string{w.proxy}, 200},
		{"POST", page, nil, 200},
	} {
		before := len(w.API.Requests())
		req := w.request(tt.method, "/api/", "")
		req.Header[tt.name] = tt.values
		req.Header.Set("Access-Control-Request-Method", "GET")
		a := w.do(req)
		assert.Equal(t, tt.status, a.StatusCode, tt)
		for name := range a.Header {
			assert.NotContains(t, name, "Access-Control", tt)
		}
		if tt.status != 200 {
			assert.Len(t, w.API.Requests(), before, tt)
		}
	}
}

// TestX5_Smuggling sends requests whose end two servers may see in different places. Whatever
// the proxy makes of them, the upstream never gets a second request.
func TestX5_Smuggling(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.RequestURI)
	}, nil)
	// If the proxy sees this as a second request, that is for another host. Only an upstream that
	// sees it within the first one would answer it.
	const smuggled = "GET /v1/smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n"
	number := 0
	for name, text := range map[string]string{
		"both lengths":                  "POST /api/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"two content lengths":           "POST /api/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\n" + smuggled,
		"a list of content lengths":     "POST /api/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0, 60\r\n\r\n" + smuggled,
		"a signed content length":       "POST /api/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: +5\r\n\r\nhello" + smuggled,
		"a hexadecimal content length":  "POST /api/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x5\r\n\r\nhello" + smuggled,
		"a folded line":                 "POST /api/ HTTP/1.1\r\nHost: HOST\r\nX: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"a space before the colon":      "POST /api/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"an unknown coding":             "POST /api/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"two codings":                   "POST /api/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"two fields with codings":       "POST /api/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
		"a coding in HTTP/1.0":          "POST /api/ HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"a chunk with a bare LF":        "POST /api/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n0\r\n\r\n" + smuggled,
		"a chunk that is too long":      "POST /api/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na\r\n0\r\n\r\n" + smuggled,
		"a null byte in a name":         "POST /api/ HTTP/1.1\r\nHost: HOST\r\nContent-Length\x00: 5\r\n\r\n" + smuggled,
		"a CR in a value":               "POST /api/ HTTP/1.1\r\nHost: HOST\r\nX: a\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"two hosts":                     "GET /api/ HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n" + smuggled,
		"a host with a space":           "GET /api/ HTTP/1.1\r\nHost: HOST evil.example\r\n\r\n" + smuggled,
		"a line break in the path":      "GET /api/\x0b HTTP/1.1\r\nHost: HOST\r\n\r\n" + smuggled,
		"an encoded line break":         "GET /api/%0d%0aX:%20y HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
		"a bare LF between fields":      "GET /api/ HTTP/1.1\nHost: HOST\nConnection: close\n\n",
		"a length in a Connection list": "POST /api/ HTTP/1.1\r\nHost: HOST\r\nConnection: Content-Length, close\r\nContent-Length: 50\r\n\r\n" + smuggled + "....",
		"an offer of HTTP/2":            "GET /api/ HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		"the end of a body is missing":  "POST /api/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 500\r\n\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			number++ // An upstream may notice the end of another request late.
			text = strings.Replace(text, " /api/ ", fmt.Sprintf(" /api/%d ", number), 1)
			var cut []bool
			if name == "the end of a body is missing" {
				cut = []bool{true}
			}
			reply := w.raw(text, cut...)
			mu.Lock()
			defer mu.Unlock()
			assert.LessOrEqual(t, strings.Count(fmt.Sprintf("%q", seen), fmt.Sprintf("/v1/%d\"", number)), 1, "%q: %s", seen, reply)
			assert.NotContains(t, fmt.Sprint(seen), "/v1/smuggled")
		})
	}
	for _, r := range w.API.Requests() {
		assert.NotContains(t, r.Header, "Upgrade")
		assert.NotContains(t, r.Header, "Http2-Settings")
	}
}

// TestX6_Healing checks which requests are sent again with a new token.
func TestX6_Healing(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   io.Reader
		status int
	}{
		{"no body", http.NoBody, 200},
		{"a small body", strings.NewReader("hello"), 200},
		{"the largest body that is kept", strings.NewReader(strings.Repeat("x", maxReplayed)), 200},
		{"a larger body", strings.NewReader(strings.Repeat("x", maxReplayed+1)), 401},
		{"a body of unknown length", io.MultiReader(strings.NewReader("hello")), 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) }, nil)
			w.get("/api/")
			w.Auth.RevokeAll()
			req, err := http.NewRequestWithContext(t.Context(), "POST", w.proxy+"/api/", tt.body)
			require.NoError(t, err)
			req.Header.Set("Expect", "100-continue")
			a := w.do(req)
			assert.Equal(t, tt.status, a.StatusCode)
			assert.Equal(t, 200, w.get("/api/").StatusCode)
			assert.Equal(t, 2, w.Auth.TokenRequests())
		})
	}
}

// TestX7_Failures checks what the programs get if there is no token, or no upstream.
func TestX7_Failures(t *testing.T) {
	refused := clientcredentialstest.Fault{Status: 401, Body: `{"error":"invalid_client","error_description":"` + canarySecret + `"}`}
	unavailable := clientcredentialstest.Fault{Status: 503, Header: http.Header{"Retry-After": {"77"}}, Body: canarySecret}
	for _, tt := range []struct {
		name   string
		fault  *clientcredentialstest.Fault
		edit   func(w *world, s dict)
		status int
		text   string
	}{
		{"refused", &refused, nil, 502, "refuses to issue a token (invalid_client)"},
		{"overloaded", &unavailable, nil, 503, "doesn't answer, or is overloaded"},
		{"no upstream", nil, func(_ *world, s dict) { s["routes"].([]dict)[0]["upstream"] = "http://127.0.0.1:1/" }, 502, "the upstream doesn't answer"},
		{"an upstream without https", nil, func(w *world, s dict) {
			s["routes"].([]dict)[0]["upstream"] = strings.Replace(w.api(), "http:", "https:", 1)
		}, 502, "the upstream doesn't answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil, func(w *world, s dict) {
				s["admin"] = "127.0.0.1:0"
				if tt.edit != nil {
					tt.edit(w, s)
				}
			})
			w.Auth.SetFault(tt.fault)
			a := w.get("/api/")
			assert.Equal(t, tt.status, a.StatusCode)
			assert.Contains(t, a.body, tt.text)
			assert.Equal(t, fmt.Sprint(tt.status), a.Header.Get("Ccproxy-Error"))
			assert.NotContains(t, a.body, "Canary")
			assert.Equal(t, 1, strings.Count(a.body, "\n"))
			if tt.status == 503 {
				assert.Equal(t, "77", a.Header.Get("Retry-After"))
			}
			if tt.fault != nil {
				w.Auth.SetFault(nil)
			}
		})
	}
}

// TestX7_Whose checks that a request that the upstream may have received is reported as such, even
// if there is no token anymore: the program must not take it for one that can be sent again.
func TestX7_Whose(t *testing.T) {
	w := &world{t: t, Server: newServer(t, nil), dir: t.TempDir()}
	w.write("secret.txt", canarySecret)
	d := newDaemon(t, w, w.settings())
	r := d.proxy.routing.Load().routes[0]
	for _, fault := range []clientcredentialstest.Fault{{Status: 503}, clientcredentialstest.InvalidClient()} {
		w.Auth.SetFault(&fault)
		_, noToken := r.source.TokenContext(t.Context())
		require.Error(t, noToken)
		for err, want := range map[error]string{
			noToken:                            "there is no token",
			fmt.Errorf("wrapped: %w", noToken): "there is no token",
			io.ErrUnexpectedEOF:                "the upstream doesn't answer\n",
			context.DeadlineExceeded:           "the upstream doesn't answer in time",
		} {
			answer := httptest.NewRecorder()
			r.failed(d.logger, answer, httptest.NewRequestWithContext(t.Context(), "POST", "/", nil), err)
			assert.Contains(t, answer.Body.String(), want)
			assert.Equal(t, errors.Is(err, noToken) && fault.Status == 503, answer.Header().Get("Retry-After") != "", err)
		}
	}
}

// TestX7_Outage checks that no request fails while there is a valid token.
func TestX7_Outage(t *testing.T) {
	w := newWorld(t, nil, nil)
	assert.Equal(t, 200, w.get("/api/").StatusCode)
	w.Stop()
	for range 20 {
		assert.Equal(t, 200, w.get("/api/").StatusCode)
	}
}

// TestX9_Streams checks that nothing is held back: events, interim answers, trailers, and
// WebSocket.
func TestX9_Streams(t *testing.T) {
	next := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/events":
			rw.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(rw, "data: %d\n\n", i)
				_ = http.NewResponseController(rw).Flush()
				<-next
			}
		case "/v1/upload":
			_ = http.NewResponseController(rw).EnableFullDuplex()
			buffer := make([]byte, 5)
			for {
				n, err := io.ReadFull(r.Body, buffer)
				_, _ = rw.Write(buffer[:n])
				_ = http.NewResponseController(rw).Flush()
				if err != nil {
					return
				}
			}
		case "/v1/trailers":
			rw.Header().Set("Link", "<x>")
			forbidden(rw.Header(), "")
			rw.WriteHeader(http.StatusEarlyHints)
			forbidden(rw.Header(), "")
			rw.Header().Set("Trailer", "Checksum, Set-Cookie")
			fmt.Fprint(rw, "body")
			rw.Header().Set("Checksum", "abc")
			rw.Header().Set(http.TrailerPrefix+"Late", "def")
			forbidden(rw.Header(), http.TrailerPrefix)
		case "/v1/socket":
			conn, buffered, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
			line, _ := buffered.ReadString('\n')
			fmt.Fprint(conn, "echo "+line)
		}
	}, nil)
	t.Run("events", func(t *testing.T) {
		resp, err := http.DefaultClient.Do(w.request("GET", "/api/events", ""))
		require.NoError(t, err)
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
			_, _ = lines.ReadString('\n')
			next <- struct{}{}
		}
	})
	t.Run("both directions", func(t *testing.T) {
		reader, writer := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.proxy+"/api/upload", reader)
		require.NoError(t, err)
		h2 := &http.Transport{Protocols: new(http.Protocols)} // gRPC does the same.
		h2.Protocols.SetUnencryptedHTTP2(true)
		defer h2.CloseIdleConnections()
		go fmt.Fprint(writer, "hello")
		resp, err := h2.RoundTrip(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		assert.Equal(t, 2, resp.ProtoMajor)
		for _, word := range []string{"hello", "world"} {
			got := make([]byte, 5)
			_, err = io.ReadFull(resp.Body, got)
			require.NoError(t, err)
			assert.Equal(t, word, string(got))
			if word == "hello" {
				fmt.Fprint(writer, "world")
			}
		}
		require.NoError(t, writer.Close())
		_, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
	})
	t.Run("trailers and interim answers", func(t *testing.T) {
		var hints []textproto.MIMEHeader
		req := w.request("GET", "/api/trailers", "")
		a := w.do(req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(_ int, header textproto.MIMEHeader) error { hints = append(hints, header); return nil },
		})))
		assert.Equal(t, []textproto.MIMEHeader{{"Link": {"<x>"}}}, hints)
		assert.Equal(t, "abc", a.Trailer.Get("Checksum"))
		assert.Equal(t, "def", a.Trailer.Get("Late"))
		for name := range forbidden(http.Header{}, "") {
			assert.NotContains(t, a.Header, name)
			assert.Empty(t, a.Trailer[name])
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		w.Auth.RevokeAll() // The request is sent again, too.
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.proxy, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		reader := bufio.NewReader(conn)
		fmt.Fprintf(conn, "GET /api/socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", conn.RemoteAddr())
		resp, err := http.ReadResponse(reader, nil)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		fmt.Fprint(conn, "hello\n")
		line, err := io.ReadAll(reader)
		require.NoError(t, err)
		assert.Equal(t, "echo hello\n", string(line))
	})
}

// forbidden sets the fields that an upstream must not send to a program.
func forbidden(header http.Header, prefix string) http.Header {
	for _, name := range []string{"Ccproxy-Error", "Set-Cookie", "Alt-Svc", "Clear-Site-Data", "Access-Control-Allow-Origin"} {
		header.Set(prefix+name, "x")
	}
	return header
}

// An upstream that changes to a protocol that nobody has asked for is refused, and its connection
// is closed.
func TestX9_UninvitedUpgrade(t *testing.T) {
	for name, answer := range map[string]string{
		"WebSocket":        "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"another protocol": "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"no protocol":      "\r\n",
		"no Connection":    "Upgrade: websocket\r\n\r\n",
	} {
		for asked, fields := range map[string]string{"not asked": "", "asked": "Connection: Upgrade\r\nUpgrade: websocket\r\n"} {
			if name == "WebSocket" && asked == "asked" {
				continue // TestX9_Streams has this.
			}
			t.Run(name+" "+asked, func(t *testing.T) {
				closed := make(chan error, 1)
				w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
					conn, _, err := http.NewResponseController(rw).Hijack()
					if err == nil {
						defer conn.Close()
						fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\n"+answer)
						_, err = conn.Read(make([]byte, 1))
					}
					closed <- err
				}, nil)
				conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.proxy, "http://"))
				require.NoError(t, err)
				defer conn.Close()
				fmt.Fprintf(conn, "GET /api/socket HTTP/1.1\r\nHost: %s\r\n%s\r\n", conn.RemoteAddr(), fields)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				require.NoError(t, err)
				resp.Body.Close()
				assert.Equal(t, http.StatusBadGateway, resp.StatusCode)
				require.ErrorIs(t, <-closed, io.EOF)
			})
		}
	}
}

// TestX12_Drain checks that requests under way are answered after the end, but not forever.
func TestX12_Drain(t *testing.T) {
	for _, tt := range []struct {
		name, drain string
		late        bool
	}{{"in time", "1m", false}, {"late", "50ms", true}} {
		t.Run(tt.name, func(t *testing.T) {
			arrived, release := make(chan struct{}), make(chan struct{})
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				close(arrived)
				select {
				case <-release:
				case <-r.Context().Done():
				}
			}, nil, "-drain", tt.drain)
			req := w.request("GET", "/api/", "").WithContext(context.WithoutCancel(t.Context()))
			result := make(chan error, 1)
			go func() {
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err == nil {
					resp.Body.Close()
				}
				result <- err
			}()
			<-arrived
			w.stop()
			if !tt.late {
				require.Eventually(t, func() bool {
					conn, err := net.Dial("tcp", strings.TrimPrefix(w.proxy, "http://"))
					if err == nil {
						conn.Close()
					}
					return err != nil
				}, time.Minute, time.Millisecond)
				close(release)
				require.NoError(t, <-result)
				return
			}
			require.Error(t, <-result)
			w.log.await(t, "requests were cut off")
		})
	}
}

// TestX13_Paths checks that no path leads out of the folder of the upstream.
func TestX13_Paths(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.RequestURI) }, nil)
	for path, want := range map[string]string{
		"/api/": "/v1/", "/api": "/v1", "/api?q": "/v1?q", "/api/?": "/v1/?", "/api/a//b": "/v1/a//b", "/api/%2fb": "/v1/%2fb", "/api//x": "/v1//x",
		"/api/a...": "/v1/a...", "/api/...": "/v1/...", "/api/%E2%82%AC": "/v1/%E2%82%AC", "/api/a:b@c": "/v1/a:b@c",
		"/api/..": "400", "/api/../x": "400", "/api/a/./b": "400", "/api/%2e%2e/x": "400", "/api/.%2E/x": "400", "/api/a%2f..%2fb": "400",
		"/api/..%5cx": "400", "/api/..;/x": "400", "/api/..;a=b/x": "400", "/api/x/..": "400",
		"/apis": "404", "/": "404", "/%61pi/x": "404", "/API/x": "404", "//api/x": "404", "/x/../api/y": "404",
	} {
		reply := w.raw("GET " + path + " HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")
		if len(want) == 3 && want[0] == '4' {
			assert.Contains(t, firstLine(reply), " "+want+" ", path)
		} else {
			assert.True(t, strings.HasSuffix(reply, "\r\n\r\n"+want), "%s: %s", path, reply)
		}
	}
}

// TestX13_Locations checks that redirects within the upstream lead to the proxy, and that others
// lead to no other route.
func TestX13_Locations(t *testing.T) {
	var location string
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Location", location)
		rw.WriteHeader(http.StatusTemporaryRedirect)
	}, func(w *world, s dict) {
		s["routes"] = []dict{w.route("/api/"), w.route("/api/inner/"), w.route("/v2/")}
	})
	cases := 0
	for said, want := range map[string]string{
		w.api() + "/v1/next?a=b#c":      "/api/next?a=b#c",
		"/v1/next%2Fx":                  "/api/next%2Fx",
		"next":                          "/api/a/next",
		"../next":                       "/api/next",
		"?page=2":                       "/api/a/b?page=2",
		"/v1/innermost":                 "/api/innermost",
		"/v1/inner":                     w.api() + "/v1/inner",
		"/v1/inn%65r/next":              w.api() + "/v1/inn%65r/next",
		"/v2/next?a=b":                  w.api() + "/v2/next?a=b",
		"../../v2/next":                 w.api() + "/v2/next",
		`\v2\..\next`:                   w.api() + `/v1/a/%5Cv2%5C..%5Cnext`,
		"http:/v2/next":                 "",
		"http:v2/next":                  "",
		"/v2/next#%":                    "",
		"https://other.example/b\u00e4": "https://other.example/b\u00e4",
		"https://evil.example/v1/":      "https://evil.example/v1/",
		"//evil.example/v1/":            "http://evil.example/v1/",
		w.api() + "/v1//evil.example/":  "/api//evil.example/",
		w.api() + "/v1/..%2fx":          w.api() + "/v1/..%2fx",
		strings.Replace(w.api(), "http:", "https:", 1) + "/v1/": strings.Replace(w.api(), "http:", "https:", 1) + "/v1/",
	} {
		location = said
		a := w.get("/api/a/b")
		assert.Equal(t, 307, a.StatusCode)
		assert.Equal(t, want, a.Header.Get("Location"), said)
		cases++
	}
	root := route{routeSettings: routeSettings{prefix: "/", upstream: &url.URL{Scheme: "https", Host: "api.example", Path: "/"}}}
	assert.Equal(t, "https://api.example//evil.example/", root.incoming("https://api.example//evil.example/", root.upstream))
	assert.Equal(t, "https://user@api.example/", root.incoming("https://user@api.example/", root.upstream))
	assert.Len(t, w.API.Requests(), cases)
}

// TestX2_Certificates checks https on both sides: the authorities in ca_file, and a client
// certificate that the token is bound to.
func TestX2_Certificates(t *testing.T) {
	certificate := testkit.ClientCertificate("client")
	srv := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
		ID: "client", Certificates: []*x509.Certificate{certificate.Leaf}, CertificateBound: true,
	})
	t.Cleanup(srv.Close)
	resp, err := srv.Client().Get(srv.APIURL)
	require.NoError(t, err)
	resp.Body.Close()
	chain := resp.TLS.PeerCertificates
	w := newWorld(t, nil, func(w *world, s dict) {
		w.write("cert.pem", testkit.CertificatePEM(certificate))
		w.write("key.pem", testkit.KeyPEM(certificate.PrivateKey))
		w.write("ca.pem", testkit.CertificatePEM(&tls.Certificate{Certificate: [][]byte{chain[len(chain)-1].Raw}}))
		s["clients"] = dict{"test": dict{
			"client_id": "client", "token_url": srv.TokenURL, "cert_file": "cert.pem", "key_file": "key.pem", "ca_file": "ca.pem",
		}}
		s["routes"].([]dict)[0]["upstream"] = srv.APIURL
	})
	a := w.get("/api/")
	assert.Equal(t, 200, a.StatusCode, a.body)
	assert.Equal(t, 1, srv.API.Accepted())
	assert.Equal(t, 1, srv.API.Rejected()) // That of the test.
}
