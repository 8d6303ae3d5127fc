//go:build !js

package clientcredentials

import "net/http"

// keepFromFollowing has nothing to do: a client's CheckRedirect keeps it from following
// redirects.
func keepFromFollowing(http.RoundTripper, http.Header) {}
