package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

const (
	// maxReplayed is the largest body that is kept to send a request again with another
	// token. Larger bodies, and those of unknown length, are streamed.
	maxReplayed = 64 << 10

	// maxReplayedTime bounds how long the proxy waits for such a body.
	maxReplayedTime = 30 * time.Second
)

// A proxy handles the requests of programs on this machine.
type proxy struct {
	logger  *slog.Logger
	routing atomic.Pointer[routing]

	maxRequests int64
	active      atomic.Int64 // requests under way
}

// newProxy returns a proxy without routing.
func newProxy(logger *slog.Logger, maxRequests int) *proxy {
	return &proxy{logger: logger, maxRequests: int64(maxRequests)}
}

// serveWith makes r send requests with transport.
func (r *route) serveWith(transport http.RoundTripper, logger *slog.Logger) {
	r.proxy = httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      transport,
		ModifyResponse: r.modifyResponse,
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			r.failed(logger, w, req, err)
		},
		ErrorLog:   quietLog(logger),
		BufferPool: &bodyBuffers,
	}
}

// quietLog returns a log for net/http, whose texts may contain what a peer has sent.
func quietLog(logger *slog.Logger) *log.Logger {
	return log.New(writerFunc(func(text []byte) (int, error) {
		logger.Debug("net/http", "text", redact.Clip(redact.Neutralise(strings.TrimSpace(string(text))), 500))
		return len(text), nil
	}), "", 0)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// ServeHTTP sends a request to the upstream of its route. The guard of the listener has checked
// it before.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.active.Add(1) > p.maxRequests {
		p.active.Add(-1)
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "too many requests are under way; try again later, or raise -max-requests")
		return
	}
	defer p.active.Add(-1)
	route := p.routing.Load().match(r.Host, r.URL.EscapedPath())
	if route == nil {
		refuse(w, http.StatusNotFound, "no route is for this path; check the address, and the routes in the settings file")
		return
	}
	out, err := route.outgoing(r.URL)
	if err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	if err := keepBody(w, r); err != nil {
		refuse(w, http.StatusBadRequest, "the body of the request can't be read")
		return
	}
	r.URL = out // ReverseProxy sends a copy of r.
	route.proxy.ServeHTTP(responseWriter{w}, r)
	removeForbidden(w.Header()) // What is left of it are the trailers.
}

// A responseWriter also keeps what is forbidden out of interim answers, such as 103 Early Hints,
// which don't go through modifyResponse.
type responseWriter struct{ http.ResponseWriter }

func (w responseWriter) WriteHeader(status int) {
	if status < 200 {
		removeForbidden(w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// keepBody reads a small body, so that the request can be sent again.
func keepBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength <= 0 || r.ContentLength > maxReplayed {
		return nil
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(maxReplayedTime)) // HTTP/2 and HTTP/1 both can.
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return err
	}
	_ = control.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Header.Del("Expect") // The body is here.
	return nil
}

// Fields of requests that end at the proxy. Credentials are the proxy's to add. Browsers send
// the cookies of all servers on this machine.
var requestFields = []string{"Authorization", "Dpop", "Cookie", "Cookie2", "Origin", "Referer", "Http2-Settings"}

// rewrite makes the request for the upstream. ReverseProxy has removed the fields that are for
// one connection only (RFC 9110, Section 7.6.1), Proxy-Authorization among them, and those that
// say for whom a proxy acts.
func rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	out.Host = ""                         // That of the URL.
	out.URL.RawQuery = pr.In.URL.RawQuery // Also what net/url can't parse.
	for _, field := range requestFields {
		delete(out.Header, field)
		delete(out.Trailer, field)
	}
	for name := range out.Header {
		if strings.HasPrefix(name, "Sec-Fetch-") {
			delete(out.Header, name)
		}
	}
	// A tunnel is for WebSocket only. Some clients offer to change to HTTP/2 with each request.
	if !isUpgrade(out.Header) {
		delete(out.Header, "Upgrade")
		delete(out.Header, "Connection")
	}
}

// isUpgrade reports whether a request asks for a change to WebSocket, or an answer agrees to it.
func isUpgrade(header http.Header) bool {
	for option := range strings.SplitSeq(strings.Join(header["Connection"], ","), ",") {
		if ascii.EqualFold(textproto.TrimString(option), "upgrade") {
			return ascii.EqualFold(header.Get("Upgrade"), "websocket")
		}
	}
	return false
}

// removeForbidden removes what an upstream must not do at the proxy's address, where other
// servers of this machine have their cookies, too.
func removeForbidden(header http.Header) {
	for name := range header {
		switch field := strings.TrimPrefix(name, http.TrailerPrefix); {
		case field == "Ccproxy-Error", field == "Set-Cookie", field == "Alt-Svc", field == "Clear-Site-Data", strings.HasPrefix(field, "Access-Control-"):
			delete(header, name)
		}
	}
}

// modifyResponse removes what is forbidden, and lets redirects lead to the proxy.
func (r *route) modifyResponse(resp *http.Response) error {
	if resp.StatusCode == http.StatusSwitchingProtocols && (!isUpgrade(resp.Request.Header) || !isUpgrade(resp.Header)) {
		// ReverseProxy wouldn't close the connection.
		return errors.New("the upstream changes to a protocol that nobody has asked for")
	}
	removeForbidden(resp.Header)
	for _, name := range []string{"Location", "Content-Location"} {
		values := resp.Header[name]
		delete(resp.Header, name)
		if len(values) == 0 {
			continue
		}
		if location := r.incoming(values[0], resp.Request.URL); location != "" {
			resp.Header.Set(name, location)
		}
	}
	return nil
}

// failed answers a request for which there is no answer of the upstream.
func (r *route) failed(logger *slog.Logger, w http.ResponseWriter, req *http.Request, err error) {
	if req.Context().Err() != nil {
		panic(http.ErrAbortHandler) // Nobody waits for an answer.
	}
	status, text := http.StatusBadGateway, "the upstream doesn't answer"
	var timeout net.Error
	s := r.source.Status()
	// The token of a request that the upstream has received may have expired since.
	noToken := s.State == clientcredentials.Failed && errors.Is(err, s.LastError)
	switch {
	case noToken && clientcredentials.IsTemporary(s.LastError):
		status, text = http.StatusServiceUnavailable, "there is no token: "+failureText(s.LastError)
		wait := max(time.Second, time.Until(s.NextRefresh))
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	case noToken:
		text = "there is no token: " + failureText(s.LastError)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		status, text = http.StatusGatewayTimeout, "the upstream doesn't answer in time"
	}
	logger.Warn("a request failed", "route", r.name(), "status", status, "error", redact.Clip(redact.Neutralise(err.Error()), 1000))
	refuse(w, status, "%s", text)
}

// refuse answers a request with a text of one line.
func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Ccproxy-Error", strconv.Itoa(status)) // It tells our answers from those of an upstream.
	http.Error(w, "ccproxy: "+fmt.Sprintf(format, args...), status)
}

// bodyBuffers is shared by all routes.
var bodyBuffers buffers

// buffers are the buffers with which bodies are copied.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }

// A guard lets the requests pass that come from programs on this machine, and refuses those
// that a web page may have caused.
type guard struct {
	next  http.Handler
	hosts map[string]bool        // values of Host that lead to this listener
	more  func() map[string]bool // those in the settings, of which a host may also have the port
	port  string                 // of the listener; empty for a unix socket
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch status, text := g.judge(r); status {
	case 0:
		g.next.ServeHTTP(w, r)
	default:
		refuse(w, status, "%s", text)
	}
}

// judge returns a status of 0 if a request may pass.
func (g *guard) judge(r *http.Request) (status int, text string) {
	switch {
	case !g.isHost(r.Host):
		// A web page gets this far if its host name leads to this machine (DNS rebinding).
		return http.StatusMisdirectedRequest, "the request is for another host; use the address that ccproxy listens on, or list the host in the settings file"
	case ascii.EqualFold(r.Method, http.MethodConnect), r.URL.IsAbs() && !ascii.EqualFold(r.URL.Scheme, "http"):
		return http.StatusMethodNotAllowed, "ccproxy isn't a proxy for other addresses; send the request to a route instead of setting http_proxy or https_proxy"
	case ascii.EqualFold(r.Method, http.MethodTrace), ascii.EqualFold(r.Method, "TRACK"):
		// The answer would contain the token, RFC 9110, Section 9.3.8.
		return http.StatusMethodNotAllowed, "the method isn't allowed, because the answer would contain the token"
	}
	// Browsers say which page has caused a request. Programs don't.
	for _, page := range r.Header["Origin"] {
		if u, err := url.Parse(page); err != nil || u.Scheme != "http" || ascii.Lower(u.Host) != ascii.Lower(r.Host) {
			return http.StatusForbidden, "the request comes from a web page; only programs may use ccproxy"
		}
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site = textproto.TrimString(site); site != "same-origin" && site != "none" {
			return http.StatusForbidden, "the request comes from a web page; only programs may use ccproxy"
		}
	}
	return 0, ""
}

// isHost reports whether the listener may get requests with this Host.
func (g *guard) isHost(host string) bool {
	host = ascii.Lower(host)
	if g.hosts[host] {
		return true
	}
	more := g.more()
	if more[host] {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	return err == nil && port == g.port && more[name]
}
