package hostile

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
)

var nowhere = log.New(io.Discard, "", 0)

// Text answers with this status, media type and body.
func Text(status int, mediaType, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) //nolint:gosec // It is meant to echo requests.
	})
}

// JSON answers with this status and a JSON body.
func JSON(status int, body string) http.Handler { return Text(status, "application/json", body) }

// Redirect answers with this status and Location. The body is a token response, to
// trick clients that don't look at the status.
func Redirect(status int, location string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status != http.StatusNotModified { // A 304 has no body.
			_, _ = io.WriteString(w, `{"access_token":"`+StolenToken+`","token_type":"Bearer","expires_in":3600}`)
		}
	})
}

// StolenToken is the access token in the body of Redirect.
const StolenToken = "token-of-a-hostile-redirect"

// Echo answers with a page that contains the whole request, secrets included.
func Echo(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		Text(status, "text/html", "<pre>"+Dump(req)+"</pre>").ServeHTTP(w, req)
	})
}

// Raw writes text(req) to the connection as it is and then closes the connection. It
// works with HTTP/1.1 only.
func Raw(text func(req *http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, text(req))
	})
}

// Reset resets the connection. Over TLS it only closes the connection, and over HTTP/2 it
// aborts the request.
func Reset() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if recorded, ok := conn.(*recordedConn); ok {
			if tcp, ok := recorded.Conn.(interface{ SetLinger(sec int) error }); ok {
				_ = tcp.SetLinger(0)
			}
		}
		conn.Close()
	})
}

// Dump returns the whole request as text, secrets included.
func Dump(req *http.Request) string {
	text, err := httputil.DumpRequest(req, true)
	if err != nil {
		panic(err)
	}
	return string(text)
}
