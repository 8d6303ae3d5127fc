package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	roleARN  = "arn:aws:iam::123456789012:role/reports"
	spiffeID = "spiffe://example.org/reports"
	keyID    = "1"
)

// A verifier returns the subject of an assertion for an audience.
type verifier func(assertion, audience string) (subject string, err error)

// An authorizationServer authenticates clients by the assertions of platforms.
type authorizationServer struct {
	tokenURL string
	server   *httptest.Server

	mu       sync.Mutex // protects what follows
	trusted  map[string]verifier
	verified string // the last client
}

func newAuthorizationServer() *authorizationServer {
	s := &authorizationServer{trusted: make(map[string]verifier)}
	s.server = httptest.NewServer(s)
	s.tokenURL = s.server.URL + "/token"
	return s
}

func (s *authorizationServer) close() { s.server.Close() }

// trust has the server accept assertions of that type.
func (s *authorizationServer) trust(assertionType string, verify verifier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trusted[assertionType] = verify
}

func (s *authorizationServer) lastClient() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verified
}

// ServeHTTP is the token endpoint.
func (s *authorizationServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	w.Header().Set("Content-Type", "application/json")
	verify, ok := s.trusted[r.PostFormValue("client_assertion_type")]
	err := errors.New("this type of assertion is not known")
	if ok {
		s.verified, err = verify(r.PostFormValue("client_assertion"), s.tokenURL)
	}
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": err.Error()})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 300})
}

// sign returns a JWT.
func sign(key *ecdsa.PrivateKey, algorithm jose.SignatureAlgorithm, claims jwt.Claims) (string, error) {
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", keyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// amazon is the part of AWS Security Token Service that issues JWTs.
type amazon struct {
	key    *ecdsa.PrivateKey
	server *httptest.Server
	count  atomic.Int32
}

// startAWS starts the service, and sets the environment of a workload on AWS.
func startAWS() (*amazon, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &amazon{key: key}
	a.server = httptest.NewServer(a)
	return a, setenv(map[string]string{
		"AWS_REGION":                "eu-central-1",
		"AWS_ACCESS_KEY_ID":         "id",
		"AWS_SECRET_ACCESS_KEY":     "key",
		"AWS_ENDPOINT_URL_STS":      a.server.URL,
		"AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE":           os.DevNull,
	})
}

func (a *amazon) close()        { a.server.Close() }
func (a *amazon) requests() int { return int(a.count.Load()) }

// ServeHTTP is the action GetWebIdentityToken.
func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if r.PostFormValue("Action") != "GetWebIdentityToken" || r.Header.Get("Authorization") == "" {
		http.Error(w, "<ErrorResponse><Error><Code>InvalidAction</Code></Error></ErrorResponse>", http.StatusBadRequest)
		return
	}
	a.count.Add(1)
	now := time.Now()
	token, err := sign(a.key, jose.ES384, jwt.Claims{
		Issuer:   "https://11111111-2222-3333-4444-555555555555.tokens.sts.global.api.aws",
		Subject:  roleARN,
		Audience: jwt.Audience{r.PostFormValue("Audience.member.1")},
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(time.Minute)),
		ID:       rand.Text(),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetWebIdentityTokenResult>`+
		`<WebIdentityToken>%s</WebIdentityToken><Expiration>%s</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>`,
		token, now.Add(time.Minute).UTC().Format(time.RFC3339))
}

// verify is what an authorization server does with the service's published keys.
func (a *amazon) verify(assertion, audience string) (string, error) {
	token, err := jwt.ParseSigned(assertion, []jose.SignatureAlgorithm{jose.ES384})
	if err != nil {
		return "", err
	}
	var claims jwt.Claims
	if err := token.Claims(a.key.Public(), &claims); err != nil {
		return "", err
	}
	return claims.Subject, claims.Validate(jwt.Expected{AnyAudience: jwt.Audience{audience}, Time: time.Now()})
}

// An agent has the SPIFFE Workload API.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	key    *ecdsa.PrivateKey
	bundle *jwtbundle.Bundle
	server *grpc.Server
	dir    string
	done   chan error
}

// startAgent starts an agent on a socket, and sets the environment of a workload.
func startAgent() (*agent, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "agent.sock")
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", socket)
	if err != nil {
		return nil, err
	}
	a := &agent{key: key, bundle: jwtbundle.New(spiffeid.RequireTrustDomainFromString("example.org")), server: grpc.NewServer(), dir: dir, done: make(chan error, 1)}
	if err := a.bundle.AddJWTAuthority(keyID, key.Public()); err != nil {
		return nil, err
	}
	workload.RegisterSpiffeWorkloadAPIServer(a.server, a)
	go func() { a.done <- a.server.Serve(listener) }()
	return a, setenv(map[string]string{"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket})
}

func (a *agent) close() {
	a.server.Stop() // Serve returns nil then.
	if err := <-a.done; err != nil {
		panic(err)
	}
	os.RemoveAll(a.dir)
}

// FetchJWTSVID issues a JWT-SVID.
func (a *agent) FetchJWTSVID(ctx context.Context, r *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if header, _ := metadata.FromIncomingContext(ctx); !slices.Equal(header.Get("workload.spiffe.io"), []string{"true"}) {
		return nil, status.Error(codes.InvalidArgument, "the security header is missing")
	}
	now := time.Now()
	token, err := sign(a.key, jose.ES256, jwt.Claims{
		Subject:  spiffeID,
		Audience: r.GetAudience(),
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(5 * time.Minute)),
	})
	if err != nil {
		return nil, err
	}
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: spiffeID, Svid: token}}}, nil
}

// FetchJWTBundles sends the keys of the trust domain, and keeps the stream open.
func (a *agent) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	keys, err := a.bundle.Marshal()
	if err != nil {
		return err
	}
	if err := stream.Send(&workload.JWTBundlesResponse{Bundles: map[string][]byte{"spiffe://example.org": keys}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// verify is what an authorization server does with the trust domain's keys.
func (a *agent) verify(assertion, audience string) (string, error) {
	svid, err := jwtsvid.ParseAndValidate(assertion, a.bundle, []string{audience})
	if err != nil {
		return "", err
	}
	return svid.ID.String(), nil
}

// setenv sets variables of the environment.
func setenv(values map[string]string) error {
	var errs []error
	for name, value := range values {
		errs = append(errs, os.Setenv(name, value))
	}
	return errors.Join(errs...)
}
