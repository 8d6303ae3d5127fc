package main

import (
	"net/url"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// This file adapts rules of the library to what cctoken has at hand.

// isCleartext reports whether others can read what is sent to address on its way.
func isCleartext(address string) bool {
	u, err := url.Parse(address)
	return err == nil && origin.IsCleartext(u)
}

// isTemporary reports whether the request that ended with err may succeed later. The
// status is that of the last answer, or 0: the errors of Discover don't contain it.
func isTemporary(err error, status int) bool {
	return clientcredentials.IsTemporary(err) || tokenresponse.IsTemporary(status, "")
}
