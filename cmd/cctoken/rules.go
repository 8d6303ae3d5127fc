package main

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/seed-5bfa0880/clientcredentials"
)

// This file holds the rules that cctoken shares with the library. No other file has a
// copy of one.

// isCleartext reports whether others can read what is sent to address on its way.
func isCleartext(address string) bool {
	u, err := url.Parse(address)
	if err != nil || !strings.EqualFold(u.Scheme, "http") {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return !strings.EqualFold(u.Hostname(), "localhost") && (ip == nil || !ip.IsLoopback())
}

// printableURL returns address without its query, which may contain a key.
func printableURL(address string) string {
	before, _, _ := strings.Cut(address, "?")
	return before
}

// neutralise returns s with the characters replaced that could rewrite a terminal.
// Tabs and line ends stay.
func neutralise(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

var credentialName = regexp.MustCompile(`(?i)secret|password|assertion|token|key$`)

// isCredentialName reports whether a parameter or flag of this name holds a credential.
func isCredentialName(name string) bool { return credentialName.MatchString(name) }

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

// isTLSAlert reports whether err is a TLS alert from the server. Package crypto/tls
// doesn't export the type of an alert that arrives over TCP.
func isTLSAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}
