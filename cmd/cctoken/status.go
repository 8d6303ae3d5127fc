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
)

// The exit statuses. help/cctoken.txt tells them to the user.
const (
	statusOK          = 0
	statusRefused     = 1   // the server refuses the client, or what it asks for
	statusUsage       = 2   // flags, settings, files: nothing was sent
	statusTemporary   = 3   // no answer, or one that speaks of load or of a fault
	statusUnusable    = 4   // an answer that isn't what it should be, or can't be trusted
	statusOutput      = 5   // the result can't be written
	statusInterrupted = 130 // as a shell calls the end by an interrupt
)

// A failure is an error with the exit status it stands for.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usagef returns the error for a mistake in how the program is called.
func usagef(format string, args ...any) error {
	return &failure{statusUsage, fmt.Errorf(format, args...)}
}

// statusOf returns the exit status for err. An error of a request is given one by
// wire.fail before.
func statusOf(err error) int {
	var f *failure
	if errors.As(err, &f) {
		return f.status
	}
	return statusUsage
}

// requestStatus returns the exit status for err, with which a request ended that was
// sent. answered is the status of the last answer, 0 without one.
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

// explain returns what went wrong, and what to do about it.
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
		text = strings.TrimSuffix(text, ": "+refusal.Error()) // Which quotes the server.
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "oauth2: "), "cannot fetch token: ")
	advise := func(advice string) string { return text + "; " + advice }
	switch {
	case refusal != nil && !isRedirect(refusal.Response.StatusCode):
		return explainRefusal(refusal)
	case errors.As(err, &authority):
		return advise("check that this is the right server, then give the certificate of its authority with -ca-file")
	case errors.As(err, &hostname):
		return advise("check the address: the server there has a certificate for another")
	case errors.As(err, &invalid):
		return advise("check the clock of this machine, and the server's certificate")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return advise("check scheme and port of the address")
	case errors.As(err, &dns):
		return advise("check the host name in the address")
	case errors.Is(err, context.DeadlineExceeded):
		return advise("check that the server can be reached from here, or give it more time with -timeout")
	case isTLSAlert(err):
		return advise("the server may want a client certificate, or another one: see -cert-file")
	case errors.As(err, &operation) && operation.Op == "dial":
		return advise("check host and port of the address, and that the server is running")
	}
	return text
}

func isRedirect(status int) bool { return 300 <= status && status <= 399 }

// explainRefusal says what the server has answered, RFC 6749, Section 5.2.
func explainRefusal(refusal *oauth2.RetrieveError) string {
	status := refusal.Response.StatusCode
	if refusal.ErrorCode == "" {
		return fmt.Sprintf("the server answered %d and no OAuth error; %s", status, adviseStatus(status))
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
		return "check the client id, the credentials, and the method by which the client is registered to use them: cctoken doctor tries each"
	case "unauthorized_client", "unsupported_grant_type":
		return "check the credentials, and that the client may use the client_credentials grant at the server"
	case "invalid_scope":
		return "check -scopes, and what the client may ask for at the server"
	case "invalid_target":
		return "check resource and audience in -params"
	case "use_dpop_nonce", "invalid_dpop_proof":
		return "check -dpop-key-file, which the client may be registered for, and the clock of this machine"
	case "temporarily_unavailable", "server_error":
		return adviseStatus(http.StatusServiceUnavailable)
	}
	return adviseStatus(status)
}

// adviseStatus says what to do about a status without an error code.
func adviseStatus(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return "wait before the next try: the server asks for it"
	case isTemporaryStatus(status):
		return "try again later"
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return "check that the token URL is that of a token endpoint"
	}
	return "check the token URL, then what the server wants from this client: cctoken doctor tries what there is"
}
