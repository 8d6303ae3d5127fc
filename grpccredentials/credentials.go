package grpccredentials

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/seed-5bfa0880/clientcredentials"
)

// Credentials adds the token of a Source to the metadata of RPCs, as authorization. It
// is a credentials.PerRPCCredentials, for grpc.WithPerRPCCredentials, a
// credentials.Bundle or a single call. Its interceptors replace tokens that a server
// refuses.
//
// Call New to get Credentials. All methods are safe for concurrent use.
type Credentials struct {
	source    *clientcredentials.Source
	plaintext bool                                // tokens may go over connections without TLS
	replayIf  func(method string, err error) bool // nil: if the server has sent no headers
}

var _ credentials.PerRPCCredentials = (*Credentials)(nil)

// An Option changes what New and DialOptions return.
type Option func(*Credentials)

// DangerouslySendTokensInPlaintext lets tokens go over connections without TLS, where
// anybody on the way can read and use them. RFC 6750, Section 5.3, forbids that. Use it
// for tests, and for a service mesh whose proxy on the same host adds the TLS.
func DangerouslySendTokensInPlaintext() Option {
	return func(c *Credentials) { c.plaintext = true }
}

// ReplayIf decides which unary calls are replayed with a new token after the server has
// answered Unauthenticated: those for which allowed returns true. Its arguments are the
// method, such as "/package.Service/Method", and the error of the call. allowed may be
// called concurrently.
//
// Without ReplayIf, a call is replayed if the server has sent no headers before the
// status. ReplayIf replaces that rule. Make it stricter for a service whose handlers may
// answer Unauthenticated after they have changed something. Make it more lenient for a
// service that always sends headers first. The token is dropped in any case.
func ReplayIf(allowed func(method string, err error) bool) Option {
	return func(c *Credentials) { c.replayIf = allowed }
}

// New returns Credentials with the tokens of source, which must come from
// clientcredentials.Config.Source. To use them for one ClientConn only, call DialOptions
// instead.
func New(source *clientcredentials.Source, opts ...Option) *Credentials {
	c := &Credentials{source: source}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// DialOptions returns options for grpc.NewClient: Credentials with the tokens of source,
// and both of their interceptors. Each RPC then carries a token, and tokens that the
// server refuses are replaced. Interceptors in earlier options see a replayed call once,
// those in later options see it twice.
func DialOptions(source *clientcredentials.Source, opts ...Option) []grpc.DialOption {
	c := New(source, opts...)
	return []grpc.DialOption{
		grpc.WithPerRPCCredentials(c),
		grpc.WithChainUnaryInterceptor(c.UnaryClientInterceptor),
		grpc.WithChainStreamInterceptor(c.StreamClientInterceptor),
	}
}

// nowhere is the address of a request that is never sent.
var nowhere url.URL

// GetRequestMetadata returns the metadata for an RPC: authorization, with a token as in
// RFC 6750, Section 2.1. grpc calls it for each attempt at an RPC, with the context of the
// RPC. It waits for a token no longer than that context allows.
//
// Its errors have the status that the RPC ends with, and wrap the error of the Source:
// see the package documentation.
func (c *Credentials) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	call := c.callOf(ctx)
	call.sends(nil) // Forget the token of an earlier attempt.
	if !c.plaintext {
		info, _ := credentials.RequestInfoFromContext(ctx)
		if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
			return nil, newError(codes.Unauthenticated, errPlaintext)
		}
	}
	// Authorize knows the authentication scheme that the Config asks for.
	req := (&http.Request{URL: &nowhere, Header: make(http.Header, 1)}).WithContext(ctx)
	if err := c.source.Authorize(req); err != nil {
		return nil, newError(codeOf(ctx, err), err)
	}
	value := req.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(value, " ")
	if scheme == "DPoP" {
		return nil, newError(codes.Unauthenticated, errDPoP)
	}
	call.sends(&oauth2.Token{AccessToken: token})
	return map[string]string{"authorization": value}, nil
}

// RequireTransportSecurity returns true unless DangerouslySendTokensInPlaintext is set.
// grpc then refuses to make a ClientConn without TLS.
func (c *Credentials) RequireTransportSecurity() bool { return !c.plaintext }
