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

func (f *failure) Error() string { return f.err.Error() }
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
	var refusal *oauth2.RetrieveError
	switch {
	case isTemporary(err, answered):
		return statusTemporary
	case errors.As(err, &refusal) && !isRedirect(refusal.Response.StatusCode):
		return statusRefused
	}
	return statusUnusable
}

// explain says what went wrong and what to do about it.
func explain(err error) string {
	var (
		refusal   *oauth2.RetrieveError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		dns       *net.DNSError
		operation *net.OpError
	)
	text := err.Error()
	if errors.As(err, &refusal) {
		text = strings.TrimSuffix(text, ": "+refusal.Error()) // It quotes the server.
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "oauth2: "), "cannot fetch token: ")
	advise := func(advice string) string { return text + "; " + advice }
	switch {
	case refusal != nil && !isRedirect(refusal.Response.StatusCode):
		return explainRefusal(refusal)
	case errors.As(err, &authority):
		return advise("check that this is the right server, then name a file with its certification authority with -ca-file")
	case errors.As(err, &hostname):
		return advise("check the address: the certificate of the server is for another one")
	case errors.As(err, &invalid):
		return advise("check the clock of this machine, and the server's certificate")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return advise("check the scheme and the port of the address")
	case errors.As(err, &dns):
		return advise("check the host name in the address")
	case errors.Is(err, context.DeadlineExceeded):
		return advise("check that this machine can reach the server, or allow more time with -timeout")
	case tlsalert.Is(err):
		return advise("the server may require a client certificate, or another one: see -cert-file")
	case errors.As(err, &operation) && operation.Op == "dial":
		return advise("check the host and the port of the address, and that the server is running")
	}
	return text
}

func isRedirect(status int) bool { return 300 <= status && status <= 399 }

// isMissing reports whether the status says that there is no token endpoint.
func isMissing(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed
}

// explainRefusal says how the server refused, RFC 6749, Section 5.2.
func explainRefusal(refusal *oauth2.RetrieveError) string {
	status := refusal.Response.StatusCode
	if refusal.ErrorCode == "" {
		return fmt.Sprintf("the server answered %d without an OAuth error; %s", status, adviseStatus(status))
	}
	text := fmt.Sprintf("the server refused with %s (status %d)", refusal.ErrorCode, status)
	if refusal.ErrorDescription != "" {
		text += fmt.Sprintf(", saying %q", refusal.ErrorDescription)
	}
	return text + "; " + adviseCode(refusal.ErrorCode, status)
}

// adviseCode says what to do about an error code, RFC 6749, Section 5.2.
func adviseCode(code string, status int) string {
	switch code {
	case "invalid_client":
		return "check the client id, the credentials, and the authentication method that the client is registered for: cctoken doctor tries each"
	case "unauthorized_client", "unsupported_grant_type":
		return "check the credentials, and that the client is allowed to use the client_credentials grant"
	case "invalid_scope":
		return "check -scopes, and which scopes the client is allowed to request"
	case "invalid_target":
		return "check resource and audience in -params"
	case "use_dpop_nonce", "invalid_dpop_proof":
		return "check the clock of this machine, and -dpop-key-file: the client may be registered for bound tokens"
	case "temporarily_unavailable", "server_error":
		return adviseStatus(http.StatusServiceUnavailable)
	}
	return adviseStatus(status)
}

// adviseStatus says what to do about a status without an error code.
func adviseStatus(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return "wait before you try again: the server asks for it"
	case isTemporaryStatus(status):
		return "try again later"
	case isMissing(status):
		return "check that the token URL is the address of a token endpoint"
	}
	return "check the token URL, then what the server expects of this client: cctoken doctor tries each method"
}
