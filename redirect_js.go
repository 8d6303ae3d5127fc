//go:build js

package clientcredentials

import (
	"net/http"
	"strings"
	"syscall/js"
)

// keepFromFollowing tells the Fetch API to follow no redirects: it would follow them by itself,
// with the credentials, before an http.Client gets to see them. net/http removes the header
// field. It isn't set where net/http doesn't use the Fetch API, because it would be sent.
func keepFromFollowing(base http.RoundTripper, header http.Header) {
	if transport, ok := plainTransport(base); ok && (transport.DialContext != nil || transport.DialTLSContext != nil) {
		return
	}
	process := js.Global().Get("process")
	inNode := process.Type() == js.TypeObject && strings.HasPrefix(process.Get("argv0").String(), "node")
	if !js.Global().Get("fetch").IsUndefined() && !inNode {
		header.Set("js.fetch:redirect", "manual")
	}
}
