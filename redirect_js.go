//go:build js

package clientcredentials

import (
	"net/http"
	"strings"
	"syscall/js"
)

// keepFromFollowing tells the Fetch API to follow no redirects: it would follow them by
// itself, with the credentials, before an http.Client gets to see them. net/http removes
// the header field. Where it doesn't use the Fetch API, it refuses such a name, so the
// field isn't set then. What a wrapped transport does can't be seen: the field is set, to
// be safe.
func keepFromFollowing(base http.RoundTripper, header http.Header) {
	if transport, ok := plainTransport(base); ok && dials(transport) {
		return
	}
	process := js.Global().Get("process")
	inNode := process.Type() == js.TypeObject && strings.HasPrefix(process.Get("argv0").String(), "node")
	if !js.Global().Get("fetch").IsUndefined() && !inNode {
		header.Set("js.fetch:redirect", "manual")
	}
}

// dials reports whether transport makes its own connections, instead of using the Fetch API.
func dials(transport *http.Transport) bool {
	return transport.DialContext != nil || transport.DialTLSContext != nil ||
		transport.Dial != nil || transport.DialTLS != nil //nolint:staticcheck // Programs still use them.
}
