package main

import (
	"net/http"
	"net/url"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
)

// This file adapts rules of the library to what cctoken has at hand.

// isCleartext reports whether others can read what is sent to address on its way.
func isCleartext(address string) bool {
	u, err := url.Parse(address)
	return err == nil && origin.IsCleartext(u)
}

// isTemporary reports whether the request that ended with err may succeed later. The
// status is that of the last answer, or 0. The errors of Discover don't contain it.
func isTemporary(err error, status int) bool {
	return clientcredentials.IsTemporary(err) || isTemporaryStatus(status)
}

// isTemporaryStatus reports whether a server that answers with this status may answer
// with another one later.
func isTemporaryStatus(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
}
