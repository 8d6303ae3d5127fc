package grpccredentials

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/seed-5bfa0880/clientcredentials"
)

// Credentials puts the token of a Source into the metadata of RPCs, as the value of
// authorization. It is a credentials.PerRPCCredentials, for grpc.WithPerRPCCredentials,
// a credentials.Bundle, or a single call. Its interceptors see to tokens that a server
// refuses.
//
// Get one from New. All methods are safe for concurrent use.
type Credentials struct {
	source    *clientcredentials.Source
	cleartext bool                                // tokens may go over connections that anybody can read
	replayIf  func(method string, err error) bool // nil: unless the response has begun
}

var _ credentials.PerRPCCredentials = (*Credentials)(nil)

// An Option changes what New and DialOptions return.
type Option func(*Credentials)

// DangerouslySendTokensInPlaintext lets tokens go over connections without TLS, where
// anybody on the way can read and use them: RFC 6750, Section 5.3, forbids that. It is
// for tests, and for a mesh whose proxy adds the TLS on the same host.
func DangerouslySendTokensInPlaintext() Option {
	return func(c *Credentials) { c.cleartext = true }
}

// ReplayIf decides which unary calls are replayed with a new token: those for which
// allowed returns true, of method, like "/package.Service/Method", that the server has
// answered with err, whose status is Unauthenticated. It takes the place of the rule
// that the response must not have begun, and may be stricter, for a service whose
// handlers answer so after they have had an effect, or more lenient, for one that sends
// headers with every answer. The token is dropped in any case. allowed may be called
// concurrently.
func ReplayIf(allowed func(method string, err error) bool) Option {
	return func(c *Credentials) { c.replayIf = allowed }
}

// New returns Credentials with the tokens of source, which is from
// clientcredentials.Config.Source. Programs that have no other use for them than one
// ClientConn call DialOptions.
func New(source *clientcredentials.Source, opts ...Option) *Credentials {
	c := &Credentials{source: source}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// DialOptions returns what grpc.NewClient needs so that each RPC carries a token of
// source, and the server is listened to when it refuses one: the Credentials and both
// of their interceptors. Interceptors of earlier options see a call that is replayed
// as one, those of later options as two.
func DialOptions(source *clientcredentials.Source, opts ...Option) []grpc.DialOption {
	c := New(source, opts...)
	return []grpc.DialOption{
		grpc.WithPerRPCCredentials(c),
		grpc.WithChainUnaryInterceptor(c.UnaryClientInterceptor),
		grpc.WithChainStreamInterceptor(c.StreamClientInterceptor),
	}
}

// GetRequestMetadata returns the metadata for an RPC: authorization, with a token as
// RFC 6750, Section 2.1, has it. grpc calls it for each attempt at an RPC, with the
// RPC's context, and it waits for a token no longer than that allows.
//
// Its errors have the status that the RPC then ends with, and wrap those of the Source:
// see the package documentation.
func (c *Credentials) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	call := c.callOf(ctx)
	call.sends(nil) // What follows isn't about the token of an earlier attempt.
	if !c.cleartext {
		info, _ := credentials.RequestInfoFromContext(ctx)
		if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
			return nil, newError(codes.Unauthenticated, errCleartext)
		}
	}
	token, err := c.source.TokenContext(ctx)
	if err != nil {
		return nil, newError(codeOf(ctx, err), err)
	}
	if strings.EqualFold(token.TokenType, "DPoP") {
		return nil, newError(codes.Unauthenticated, errDPoP)
	}
	call.sends(token)
	return map[string]string{"authorization": token.Type() + " " + token.AccessToken}, nil
}

// RequireTransportSecurity returns true, unless DangerouslySendTokensInPlaintext says
// otherwise. grpc then refuses to make a ClientConn without TLS.
func (c *Credentials) RequireTransportSecurity() bool { return !c.cleartext }
