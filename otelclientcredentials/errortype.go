package otelclientcredentials

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// Values of error.type, besides OAuth error codes and HTTP status codes.
const (
	typeInvalidResponse = "invalid_response"
	typeUnavailable     = "temporarily_unavailable" // Also an OAuth error code, which means the same.
	typeTimeout         = "timeout"
	typeCanceled        = "canceled"
	typeDNS             = "dns"
	typeTLS             = "tls"
	typeConnection      = "connection"
	typeOther           = "_OTHER" // From the semantic conventions.
)

// oauthErrors are the registered error codes that a client credentials request can get
// as an answer. A server can send any text as a code. To bound the number of values,
// other codes are not reported.
var oauthErrors = []string{
	// RFC 6749, Section 5.2.
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	// RFC 6749, Section 4.1.2.1: meant for the authorization endpoint, but token
	// endpoints send them too.
	"access_denied", "server_error", "temporarily_unavailable",
	"invalid_target",                       // RFC 8707, Section 2
	"invalid_authorization_details",        // RFC 9396, Section 5
	"invalid_dpop_proof", "use_dpop_nonce", // RFC 9449, Sections 5 and 8
	"slow_down", // RFC 8628, Section 3.5
}

// errorType returns the value of error.type for err. It is one of a finite set, which
// the package documentation lists. If the server answered, the value describes the
// answer.
func errorType(err error) string {
	var refusal *oauth2.RetrieveError
	var fault *clientcredentials.ResponseError
	switch {
	case errors.As(err, &refusal):
		if slices.Contains(oauthErrors, refusal.ErrorCode) {
			return refusal.ErrorCode
		}
		// Some servers refuse with status 200. That status says nothing about the error.
		if status := statusCode(err); status >= 300 && http.StatusText(status) != "" {
			return strconv.Itoa(status)
		}
		if clientcredentials.IsTemporary(err) {
			return typeUnavailable // The status is one of many that reverse proxies have for it.
		}
		return typeOther
	case errors.As(err, &fault):
		return typeInvalidResponse
	case errors.Is(err, context.Canceled):
		return typeCanceled
	case is[*net.DNSError](err):
		return typeDNS // Even if it was a timeout.
	case isTimeout(err):
		return typeTimeout
	case isTLS(err):
		return typeTLS
	case isConnection(err):
		return typeConnection
	}
	return typeOther
}

// statusCode returns the status of the answer that caused err, or 0 if there was none.
func statusCode(err error) int {
	var refusal *oauth2.RetrieveError
	var fault *clientcredentials.ResponseError
	switch {
	case errors.As(err, &refusal) && refusal.Response != nil:
		return refusal.Response.StatusCode
	case errors.As(err, &fault):
		return fault.StatusCode
	}
	return 0
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func isTLS(err error) bool {
	// The type of a TLS alert isn't exported. The name of the operation gives it away.
	var operation *net.OpError
	if errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error") {
		return true
	}
	return is[*tls.CertificateVerificationError](err) || is[tls.RecordHeaderError](err) || errors.Is(err, http.ErrSchemeMismatch)
}

// isConnection reports whether the request failed without an answer. It accepts every
// *url.Error, because net/http doesn't export many of the types inside, such as those
// of HTTP/2.
func isConnection(err error) bool {
	return is[*url.Error](err) || is[*net.OpError](err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// is reports whether err is or wraps a T.
func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
