package grpccredentials_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
)

// refuse returns an error response.
func refuse(status int, code string) cct.Fault {
	return cct.Fault{
		Status: status,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   fmt.Sprintf(`{"error":%q,"error_description":"the reason"}`, code),
	}
}

func TestCodes(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault cct.Fault
		want  codes.Code
	}{
		{"invalid_client", cct.InvalidClient(), codes.Unauthenticated},
		{"invalid_client with 400", refuse(400, "invalid_client"), codes.Unauthenticated},
		{"invalid_request", refuse(400, "invalid_request"), codes.Unauthenticated},
		{"unsupported_grant_type", refuse(400, "unsupported_grant_type"), codes.Unauthenticated},
		{"unauthorized_client", refuse(400, "unauthorized_client"), codes.PermissionDenied},
		{"invalid_scope", refuse(400, "invalid_scope"), codes.PermissionDenied},
		{"access_denied", refuse(400, "access_denied"), codes.PermissionDenied},
		{"403", cct.Fault{Status: 403, Body: "no"}, codes.PermissionDenied},
		{"404", cct.Fault{Status: 404, Body: "no"}, codes.Unauthenticated},
		{"a redirect", cct.Fault{Status: 302, Header: http.Header{"Location": {"https://else.example/"}}, Body: "go"}, codes.Unauthenticated},
		{"HTML", cct.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>"}, codes.Unauthenticated},
		{"408", cct.Fault{Status: 408, Body: "later"}, codes.Unavailable},
		{"429", cct.TooManyRequests(time.Second), codes.Unavailable},
		{"500", cct.Fault{Status: 500, Body: "later"}, codes.Unavailable},
		{"502", cct.Fault{Status: 502, Body: "later"}, codes.Unavailable},
		{"503", cct.Unavailable(), codes.Unavailable},
		{"504", cct.Fault{Status: 504, Body: "later"}, codes.Unavailable},
		{"a lost connection", cct.ConnectionReset(), codes.Unavailable},
		{"a cut answer", cct.Fault{CloseAfter: 10}, codes.Unavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.conf.Retry.MaxAttempts = 1
			w.auth.SetFault(&test.fault)
			client := w.withTokens(t)
			for range 2 {
				err := call(t.Context(), client)
				requireCode(t, test.want, err)
				require.NotContains(t, err.Error(), "illegal status", "gRFC A54")
				requireCode(t, test.want, streams["both ways"](t.Context(), client))
			}
			require.Empty(t, w.api.arrivals())
			require.Zero(t, w.dropped.Load())
		})
	}
}

func TestCodeOfAMisconfiguration(t *testing.T) {
	w := newWorld(t)
	w.conf.TokenURL = ""
	err := call(t.Context(), w.withTokens(t))
	requireCode(t, codes.Unauthenticated, err)
	require.ErrorContains(t, err, "TokenURL is empty")
}

func TestCodeOfASourceThatHasEnded(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := call(t.Context(), w.client(t, grpccredentials.DialOptions(w.conf.Source(ctx), cleartext)...))
	requireCode(t, codes.Unauthenticated, err)
	require.ErrorContains(t, err, "is done")
}

func TestCodeOfAServerThatIsDown(t *testing.T) {
	servers := cct.NewServer()
	servers.Close()
	w := newWorld(t)
	w.conf.TokenURL, w.conf.HTTPClient, w.conf.Retry.MaxAttempts = servers.TokenURL, new(http.Client), 1
	requireCode(t, codes.Unavailable, call(t.Context(), w.withTokens(t)))
}

func TestCodeOfAServerThatIsNotTrusted(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // It complains of the handshake.
	server.StartTLS()
	t.Cleanup(server.Close)
	w := newWorld(t)
	w.conf.TokenURL, w.conf.HTTPClient, w.conf.Retry.MaxAttempts = server.URL, new(http.Client), 1
	requireCode(t, codes.Unauthenticated, call(t.Context(), w.withTokens(t)))
}

// grpc hands its caller the error of the Source.
func TestErrorsWrapThoseOfTheSource(t *testing.T) {
	w := newWorld(t)
	invalid := cct.InvalidClient()
	w.auth.SetFault(&invalid)
	client := w.withTokens(t)
	for _, err := range []error{call(t.Context(), client), streams["both ways"](t.Context(), client)} {
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, "invalid_client", refusal.ErrorCode)
		require.True(t, strings.HasPrefix(status.Convert(err).Message(), "oauth2: "), "%v", err)
	}
}

// This puts a secret that is found nowhere else into all that a server can answer.
func TestNoSecretInMessages(t *testing.T) {
	const secret, token = "SecretCanary-7Kf+w/2", "TokenCanary.e5Gy_t2Wq"
	echo := fmt.Sprintf(`{"error":"odd %[1]s","error_description":"client_secret=%[1]s","access_token":%[2]q}`, secret, token)
	json := http.Header{"Content-Type": {"application/json"}}
	for name, fault := range map[string]cct.Fault{
		"error response": {Status: 400, Header: json, Body: echo},
		"text":           {Status: 500, Body: "you sent " + secret + ", and more that is none of others' business"},
		"no JSON":        {Status: 200, Header: json, Body: echo[1:]},
		"bad token":      {Status: 200, Header: json, Body: fmt.Sprintf(`{"access_token":"%s\u0000","token_type":"Bearer"}`, token)},
		"refused token":  {Status: 200, Header: json, Body: fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer"}`, token)},
		"DPoP token":     {Status: 200, Header: json, Body: fmt.Sprintf(`{"access_token":%q,"token_type":"DPoP"}`, token)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.conf.ClientSecret, w.conf.Retry.MaxAttempts = secret, 1
			w.auth.Register(cct.Client{ID: "client", Secret: secret})
			w.auth.SetFault(&fault)
			c := grpccredentials.New(w.source(t), cleartext)
			var printed bytes.Buffer
			client := w.client(t, grpc.WithPerRPCCredentials(c), grpc.WithChainUnaryInterceptor(c.UnaryClientInterceptor,
				func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
					err := invoker(ctx, method, req, reply, cc, opts...)
					fmt.Fprintf(&printed, "%v %+v", ctx, ctx)
					return err
				}))
			err := call(t.Context(), client)
			require.Error(t, err)
			fmt.Fprintf(&printed, "%v %+v %#v %v %+v", err, err, status.Convert(err).Proto(), c, c)
			for wrapped := err; wrapped != nil; wrapped = errors.Unwrap(wrapped) {
				fmt.Fprintf(&printed, "%v %+v %s", wrapped, wrapped, status.Convert(wrapped).Message())
			}
			require.NotContains(t, printed.String(), secret)
			require.NotContains(t, printed.String(), token)
			require.NotContains(t, status.Convert(err).Message(), "none of others' business")
		})
	}
}
