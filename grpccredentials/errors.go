package grpccredentials

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-5bfa0880/clientcredentials"
)

var (
	errPlaintext = errors.New("oauth2: the connection isn't encrypted, so the token isn't sent; give grpc.NewClient transport credentials with TLS")
	errDPoP      = errors.New("oauth2: the token is bound to a key (RFC 9449), and gRPC has no way to prove that the client has the key; use a Config without DPoP for gRPC")
)

// An rpcError is the error of an RPC that got no token. It adds a status to err. grpc
// returns it unchanged, so callers can find everything in it that err wraps.
type rpcError struct {
	status *status.Status
	err    error
}

// newError returns err with a code, which must be one that gRFC A54 allows credentials
// to use. A server may pass the message on to its own callers. So newError leaves out the
// server's answer, which oauth2.RetrieveError appends to its text.
func newError(code codes.Code, err error) error {
	message, _, _ := strings.Cut(err.Error(), "\nResponse: ")
	return &rpcError{status.New(code, message), err}
}

func (e *rpcError) Error() string              { return e.status.Err().Error() }
func (e *rpcError) Unwrap() error              { return e.err }
func (e *rpcError) GRPCStatus() *status.Status { return e.status }

// codeOf returns the code for an error of the Source. ctx is the context of the RPC.
func codeOf(ctx context.Context, err error) codes.Code {
	// Don't look for a context error in err: a token request has deadlines of its own.
	if ended := ctx.Err(); ended != nil {
		return status.FromContextError(ended).Code()
	}
	var refusal *oauth2.RetrieveError
	switch {
	case clientcredentials.IsTemporary(err):
		return codes.Unavailable
	case errors.As(err, &refusal) && deniesPermission(refusal):
		return codes.PermissionDenied
	}
	return codes.Unauthenticated
}

// deniesPermission reports whether the authorization server knows the client, but doesn't
// let it have the token: RFC 6749, Sections 4.1.2.1 and 5.2.
func deniesPermission(refusal *oauth2.RetrieveError) bool {
	switch refusal.ErrorCode {
	case "unauthorized_client", "invalid_scope", "access_denied":
		return true
	}
	return refusal.Response != nil && refusal.Response.StatusCode == http.StatusForbidden
}
