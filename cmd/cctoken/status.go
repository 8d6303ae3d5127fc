package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/tlsalert"
)

// The exit statuses, which help/cctoken.txt documents.
const (
	statusOK          = 0
	statusRefused     = 1   // the server refuses the client, or what it asks for
	statusUsage       = 2   // flags, settings, files: nothing was sent
	statusTemporary   = 3   // no answer, or an answer that reports overload or a fault
	statusUnusable    = 4   // an answer that is not as expected, or not to be trusted
	statusOutput      = 5   // the result can't be written
	statusInterrupted = 130 // what a shell reports after an interrupt
)

// A failure is an error with its exit status.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return strings.TrimPrefix(f.err.Error(), "oauth2: ") }
func (f *failure) Unwrap() error { return f.err }

// usagef returns a failure with statusUsage.
func usagef(format string, args ...any) error {
	return &failure{statusUsage, fmt.Errorf(format, args...)}
}

// statusOf returns the exit status for err.
func statusOf(err error) int {
	var f *failure
	if errors.As(err, &f) {
		return f.status
	}
	return statusUsage
}

// requestStatus returns the exit status for err, the error of a request that was sent.
// answered is the status of the last answer, or 0 if there was none.
func requestStatus(err error, answered int) int {
	if isTemporary(err, answered) {
		return statusTemporary
	}
	if _, ok := refusalOf(err); ok {
		return statusRefused
	}
	return statusUnusable
}

// explain says why there is no answer, or not one of a token endpoint, and what to change.
// If that is empty, the library's error contains it.
func explain(err error) (said, change string) {
	var (
		refusal   *oauth2.RetrieveError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		dns       *net.DNSError
		operation *net.OpError
	)
	said = err.Error()
	if errors.As(err, &refusal) {
		said = strings.TrimSuffix(said, ": "+refusal.Error()) // It quotes the server.
	}
	said = strings.TrimPrefix(strings.TrimPrefix(said, "oauth2: "), "cannot fetch token: ")
	switch {
	case errors.As(err, &authority):
		change = "check that this is the right server, then name a file with its certification authority with -ca-file"
	case errors.As(err, &hostname):
		change = "check the address: the certificate of the server is for another one"
	case errors.As(err, &invalid):
		change = "check the clock of this machine, and the server's certificate"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		change = "check the scheme and the port of the address"
	case errors.As(err, &dns):
		change = "check the host name in the address"
	case errors.Is(err, context.DeadlineExceeded):
		change = "check that this machine can reach the server, or allow more time with -timeout"
	case tlsalert.Is(err) && strings.Contains(said, "no renegotiation"):
		change = "change -token-url to an address that asks for the client certificate in the TLS handshake: this one asks by renegotiation, for which a program must set Renegotiation in the tls.Config of its HTTPClient"
	case tlsalert.Is(err):
		change = "the server may require a client certificate, or another one: see -cert-file"
	case errors.As(err, &operation) && operation.Op == "dial":
		change = "check the host and the port of the address, and that the server is running"
	}
	return said, change
}

func isRedirect(status int) bool { return 300 <= status && status <= 399 }
