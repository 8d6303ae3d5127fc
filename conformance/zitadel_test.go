package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// startZitadel is the starter of zitadel/oidc, with its own router. Its access tokens are
// JWTs.
func startZitadel(t *testing.T, clients ...registration) []endpoints {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	// This version panics if the Basic credentials have a wrong percent escape. Then it closes
	// the connection.
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	issuer := "http://" + server.Listener.Addr().String()
	store := &zitadelStore{clients: map[string]knownClient{}, tokens: map[string]answer{}}
	provider, err := op.NewProvider(
		&op.Config{AuthMethodPost: true, SupportedScopes: []string{scopeRead, scopeAdmin}},
		store, op.StaticIssuer(issuer), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)),
	)
	require.NoError(t, err)
	verifier := op.NewAccessTokenVerifier(issuer, store, op.WithSupportedAccessTokenSigningAlgorithms("ES256"))
	verify := func(ctx context.Context, token string) (*oidc.AccessTokenClaims, error) {
		return op.VerifyAccessToken[*oidc.AccessTokenClaims](ctx, token, verifier)
	}

	at := inProcess{
		path:  provider.TokenEndpoint().Relative(),
		token: provider,
		find: func(r *http.Request) (answer, error) {
			claims, err := verify(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			if err != nil {
				return answer{}, err
			}
			return store.token(claims.JWTID)
		},
		add: store.add,
		revoke: func(r *http.Request, token string) error {
			claims, err := verify(r.Context(), token)
			if err == nil {
				store.forget(claims.JWTID)
			}
			return err
		},
	}.start(t, server)
	at.register(t, clients...)
	return slices.Repeat([]endpoints{at}, len(clients))
}

// A zitadelStore has the clients and tokens of a provider. It implements what the grant and
// the metadata need; the embedded interface is nil.
type zitadelStore struct {
	op.Storage

	mu      sync.Mutex // protects clients and tokens
	clients map[string]knownClient
	tokens  map[string]answer // by their jti
}

func (s *zitadelStore) add(c knownClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c.ID] = c
}

func (s *zitadelStore) client(id string) (knownClient, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.clients[id]
	return c, ok
}

func (s *zitadelStore) token(jti string) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.tokens[jti]
	if !ok {
		return answer{}, errors.New("the token was revoked")
	}
	return found, nil
}

func (s *zitadelStore) forget(jti string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, jti)
}

func (s *zitadelStore) ClientCredentials(_ context.Context, id, secret string) (op.Client, error) {
	c, ok := s.client(id)
	if !ok || c.Secret == "" || c.Secret != secret {
		return nil, errors.New("wrong id or secret")
	}
	return zitadelClient{id: id, grants: c.GrantTypes}, nil
}

func (s *zitadelStore) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	c, _ := s.client(id)
	for _, scope := range scopes {
		if scope != c.Scope {
			return nil, oidc.ErrInvalidScope()
		}
	}
	return &oidc.JWTTokenRequest{Subject: id, Audience: []string{id}, Scopes: scopes}, nil
}

func (s *zitadelStore) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	c, _ := s.client(r.GetSubject())
	jti := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[jti] = answer{ClientID: c.ID, Scope: strings.Join(r.GetScopes(), " ")}
	// expires_in and exp are rounded down to whole seconds.
	return jti, time.Now().Add(c.life() + time.Second).Truncate(time.Second), nil
}

func (*zitadelStore) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return map[string]any{}, nil
}

func (*zitadelStore) SigningKey(context.Context) (op.SigningKey, error) { return zitadelKey{}, nil }

func (*zitadelStore) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

// VerifySignature makes the store the set of keys of its own tokens.
func (*zitadelStore) VerifySignature(_ context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	return jws.Verify(testKeys()["ES256"].Public())
}

// A zitadelKey signs access tokens.
type zitadelKey struct{}

func (zitadelKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (zitadelKey) Key() any                                    { return testKeys()["ES256"] }
func (zitadelKey) ID() string                                  { return "ES256" }

// A zitadelClient is a client as the provider sees it. The embedded interface is nil.
type zitadelClient struct {
	op.Client

	id     string
	grants []string
}

func (c zitadelClient) GetID() string { return c.id }
func (c zitadelClient) GrantTypes() []oidc.GrantType {
	if c.grants == nil {
		return []oidc.GrantType{oidc.GrantTypeClientCredentials}
	}
	var types []oidc.GrantType
	for _, grant := range c.grants {
		types = append(types, oidc.GrantType(grant))
	}
	return types
}
func (zitadelClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (zitadelClient) ClockSkew() time.Duration            { return 0 }

func (zitadelClient) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}
