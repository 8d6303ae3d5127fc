package clientcredentialstest

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Fault says what goes wrong with one token request. Its fields combine. The
// request is read, checked and recorded as ever; a fault that sets none of
// Status, Body and Reset still lets a token be issued. A violation is recorded
// whatever the fault answers.
type Fault struct {
	// Delay passes before a token is issued, and so takes nothing from its
	// life. Contrast AuthorizationServer.Latency.
	Delay time.Duration

	// Status, 200 or more, is answered instead of a token. From 400 on, an
	// empty Body stands for an error response (RFC 6749, Section 5.2).
	Status int

	// Header is set over that of the answer, whatever it is: Retry-After,
	// Location, another Content-Type. A key without values deletes.
	Header http.Header

	// Body is answered literally, instead of a token or the error response.
	Body string

	// Reset breaks the connection once the request is read: with a TCP RST,
	// or with an HTTP/2 RST_STREAM.
	Reset bool

	// CloseAfter cuts the body: its full length is announced, this many bytes
	// are sent (none if negative), and the connection is closed. 0 cuts nothing.
	CloseAfter int

	// Drip sends one byte of the body per interval.
	Drip time.Duration
}

// Unavailable is a 503: the server is overloaded or down for maintenance.
func Unavailable() Fault {
	return Fault{Status: http.StatusServiceUnavailable}
}

// TooManyRequests is a 429 (RFC 6585, Section 4) with a Retry-After in seconds,
// rounded up; without one when retryAfter is zero or less.
func TooManyRequests(retryAfter time.Duration) Fault {
	f := Fault{Status: http.StatusTooManyRequests}
	if retryAfter > 0 {
		seconds := (retryAfter + time.Second - 1) / time.Second
		f.Header = http.Header{"Retry-After": {strconv.FormatInt(int64(seconds), 10)}}
	}
	return f
}

// InvalidClient is a 401 that refuses the client's credentials, whatever they
// are (RFC 6749, Section 5.2).
func InvalidClient() Fault {
	return Fault{
		Status: http.StatusUnauthorized,
		Header: http.Header{"Www-Authenticate": {basicChallenge}},
	}
}

// ConnectionReset breaks the connection once the request is read.
func ConnectionReset() Fault {
	return Fault{Reset: true}
}

// replaces reports whether f answers in place of the server.
func (f *Fault) replaces() bool {
	return f.Status != 0 || f.Body != ""
}

// answer is what f says in place of the server.
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

// wait returns after d, or ends the handler when the request is over before:
// when the client left, or the server is being stopped. Only timers and
// channels, so that a bubble of testing/synctest sees it as idle.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		// Returning would make net/http answer 200 with nothing in it.
		panic(http.ErrAbortHandler)
	}
}

// reset breaks the connection without an answer and ends the handler.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2, where this sends RST_STREAM.
	}
	// Closing a TLS connection would take leave with a close_notify.
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
