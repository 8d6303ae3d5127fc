package clientcredentialstest

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Fault says what goes wrong with one token request. Its fields can be combined.
// The server still reads, checks and records the request, and lists its violation.
// It also issues a token, unless Status, Body or Reset is set.
type Fault struct {
	// Delay is how long the server waits before it issues the token. Unlike
	// AuthorizationServer.Latency, it takes nothing from the token's life.
	Delay time.Duration

	// Status is the status of the answer instead of a token; at least 200. From 400
	// on, an empty Body means an error response (RFC 6749, Section 5.2).
	Status int

	// Header replaces fields in the header of any answer, for example Retry-After,
	// Location or Content-Type. A key without values removes the field.
	Header http.Header

	// Body is the body of the answer, instead of a token or the error response.
	Body string

	// Reset breaks the connection after the request has been read, with a TCP RST
	// or an HTTP/2 RST_STREAM.
	Reset bool

	// CloseAfter cuts the body: the server announces its full length, sends this
	// many bytes (none if negative), and closes the connection. 0: no cut.
	CloseAfter int

	// Drip is the interval at which the body is sent, one byte at a time.
	Drip time.Duration
}

// Unavailable answers 503: the server is overloaded or down for maintenance.
func Unavailable() Fault {
	return Fault{Status: http.StatusServiceUnavailable}
}

// TooManyRequests answers 429 (RFC 6585, Section 4) with a Retry-After in seconds,
// rounded up. If retryAfter is zero or less, there is no Retry-After.
func TooManyRequests(retryAfter time.Duration) Fault {
	f := Fault{Status: http.StatusTooManyRequests}
	if retryAfter > 0 {
		seconds := (retryAfter + time.Second - 1) / time.Second
		f.Header = http.Header{"Retry-After": {strconv.FormatInt(int64(seconds), 10)}}
	}
	return f
}

// InvalidClient answers 401 and refuses even the right credentials (RFC 6749,
// Section 5.2).
func InvalidClient() Fault {
	return Fault{
		Status: http.StatusUnauthorized,
		Header: http.Header{"Www-Authenticate": {basicChallenge}},
	}
}

// ConnectionReset breaks the connection after the request has been read.
func ConnectionReset() Fault {
	return Fault{Reset: true}
}

// replaces reports whether f answers in place of the server.
func (f *Fault) replaces() bool {
	return f.Status != 0 || f.Body != ""
}

// answer returns the answer that f gives in place of the server.
func (f *Fault) answer() answer {
	a := answer{status: f.Status, body: []byte(f.Body)}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if f.Body != "" || a.status < 400 {
		return a
	}
	code := "invalid_request"
	switch {
	case a.status == http.StatusUnauthorized:
		code = "invalid_client"
	case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable:
		code = "temporarily_unavailable"
	case a.status >= 500:
		code = "server_error"
	}
	a.body = errorBody(code, "scripted fault")
	return a
}

// wait waits for d. It ends the handler if the request ends before that, because the
// client left or the server is being stopped. It uses only timers and channels, so that
// a bubble of testing/synctest sees it as idle.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		// If it returned, net/http would answer 200 with an empty body.
		panic(http.ErrAbortHandler)
	}
}

// reset breaks the connection without an answer and ends the handler.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2, where this panic sends RST_STREAM.
	}
	// Closing the TLS connection itself would send a close_notify.
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
