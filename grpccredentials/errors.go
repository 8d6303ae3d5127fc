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
	errCleartext = errors.New("oauth2: the token isn't sent over a connection that isn't encrypted; give grpc.NewClient transport credentials with TLS")
	errDPoP      = errors.New("oauth2: the token is bound to a key, RFC 9449, and gRPC has no way to prove that the client has it; use a Config without DPoP for gRPC")
)

// A rpcError is what an RPC ends with for want of a token: err, with a status. grpc
// passes it on as it is, so that callers find in it what they find in err.
type rpcError struct {
	status *status.Status
	err    error
}

// newError returns err with a code, which must be one that gRFC A54 lets credentials
// use. A server may pass on the status to whoever has called it: of an answer of the
// authorization server, which oauth2.RetrieveError quotes, nothing belongs there.
func newError(code codes.Code, err error) error {
	message, _, _ := strings.Cut(err.Error(), "\nResponse: ")
	return &rpcError{status.New(code, message), err}
}

func (e *rpcError) Error() string              { return e.status.Err().Error() }
func (e *rpcError) Unwrap() error              { return e.err }
func (e *rpcError) GRPCStatus() *status.Status { return e.status }

// codeOf returns the code for an error of the Source, when an RPC with ctx asked for a
// token.
func codeOf(ctx context.Context, err error) codes.Code {
	if ended := ctx.Err(); ended != nil { // Rather than by err: a token request has deadlines of its own.
		return status.FromContextError(ended).Code()
	}
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		return codeOfRefusal(refusal)
	}
	if clientcredentials.IsTemporary(err) {
		return codes.Unavailable
	}
	return codes.Unauthenticated
}

// codeOfRefusal returns the code for an error response, RFC 6749, Section 5.2.
func codeOfRefusal(refusal *oauth2.RetrieveError) codes.Code {
	switch {
	case clientcredentials.IsTemporary(refusal):
		return codes.Unavailable
	case refusal.Response.StatusCode == http.StatusForbidden:
		return codes.PermissionDenied
	}
	switch refusal.ErrorCode {
	case "unauthorized_client", "invalid_scope", "access_denied":
		return codes.PermissionDenied
	}
	return codes.Unauthenticated
}
