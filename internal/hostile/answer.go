package hostile

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
)

var nowhere = log.New(io.Discard, "", 0)

// Text answers with that status, media type and body.
func Text(status int, mediaType, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) //nolint:gosec // Echoing is what it is for.
	})
}

// JSON is Text with a JSON text.
func JSON(status int, body string) http.Handler { return Text(status, "application/json", body) }

// Redirect answers with that status and Location. The body is a token response,
// for a client that takes it for one.
func Redirect(status int, location string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status != http.StatusNotModified { // Which has no body.
			_, _ = io.WriteString(w, `{"access_token":"`+StolenToken+`","token_type":"Bearer","expires_in":3600}`)
		}
	})
}

// StolenToken is the token in the body of Redirect.
const StolenToken = "token-of-a-hostile-redirect"

// Echo answers with a page that shows the whole request.
func Echo(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		Text(status, "text/html", "<pre>"+Dump(req)+"</pre>").ServeHTTP(w, req)
	})
}

// Raw answers with that text instead of HTTP and ends the connection. It is for
// HTTP/1.1.
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

// Reset answers by resetting the connection, or without TCP at hand by ending it.
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

// Dump returns the whole request as text, with everything secret in it.
func Dump(req *http.Request) string {
	text, err := httputil.DumpRequest(req, true)
	if err != nil {
		panic(err)
	}
	return string(text)
}
