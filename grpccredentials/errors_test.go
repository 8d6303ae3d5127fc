package grpccredentials_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
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

func TestCodes(t *testing.T) {
	fault := func(fault cct.Fault) func(*world) {
		return func(w *world) {
			w.conf.Retry.MaxAttempts = 1
			w.auth.SetFault(&fault)
		}
	}
	// oauth is an error response of RFC 6749, Section 5.2.
	oauth := func(code string) func(*world) {
		return fault(cct.Fault{
			Status: 400,
			Header: http.Header{"Content-Type": {"application/json"}},
			Body:   fmt.Sprintf(`{"error":%q,"error_description":"the reason"}`, code),
		})
	}
	for _, test := range []struct {
		name    string
		prepare func(*world)
		want    codes.Code
		text    string // in the error
	}{
		{"invalid_client", fault(cct.InvalidClient()), codes.Unauthenticated, "invalid_client"},
		{"invalid_request", oauth("invalid_request"), codes.Unauthenticated, "the reason"},
		{"unauthorized_client", oauth("unauthorized_client"), codes.PermissionDenied, "the reason"},
		{"invalid_scope", oauth("invalid_scope"), codes.PermissionDenied, "the reason"},
		{"access_denied", oauth("access_denied"), codes.PermissionDenied, "the reason"},
		{"403", fault(cct.Fault{Status: 403, Body: "no"}), codes.PermissionDenied, "403"},
		{"503", fault(cct.Unavailable()), codes.Unavailable, "temporarily_unavailable"},
		{"a lost connection", fault(cct.ConnectionReset()), codes.Unavailable, "reset"},
		{"a misconfiguration", func(w *world) { w.conf.Retry.MaxAttempts = -1 }, codes.Unauthenticated, "a field of Retry is negative"},
		{"a Source that has ended", func(w *world) { w.ended = true }, codes.Unauthenticated, "is done"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.prepare(w)
			client := w.withTokens(t)
			for _, rpc := range []procedure{unary, bothWays} {
				err := rpc(t.Context(), client)
				requireCode(t, test.want, err)
				require.ErrorContains(t, err, test.text)
				require.NotContains(t, err.Error(), "illegal status", "gRFC A54")
			}
			w.requireCounts(t, counts{tokenRequests: w.auth.TokenRequests()})
		})
	}
}

// A deadline of the token request isn't the deadline of the RPC.
func TestTokenRequestTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.SetFault(&cct.Fault{Delay: time.Hour})
		requireCode(t, codes.Unavailable, call(t.Context(), w.withTokens(t)))
	})
}

// The caller gets the error of the Source from grpc.
func TestErrorsWrapThoseOfTheSource(t *testing.T) {
	w := newWorld(t)
	invalid := cct.InvalidClient()
	w.auth.SetFault(&invalid)
	err := call(t.Context(), w.withTokens(t))
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "invalid_client", refusal.ErrorCode)
	require.True(t, strings.HasPrefix(status.Convert(err).Message(), "oauth2: "), "%v", err)
}

// This puts a secret that occurs nowhere else into everything that a server can answer.
func TestNoSecretInMessages(t *testing.T) {
	const secret, token = "SecretCanary-7Kf+w/2", "TokenCanary.e5Gy_t2Wq"
	echo := fmt.Sprintf(`{"error":"odd %[1]s","error_description":"client_secret=%[1]s","access_token":%[2]q}`, secret, token)
	json := http.Header{"Content-Type": {"application/json"}}
	for name, fault := range map[string]cct.Fault{
		"error response": {Status: 400, Header: json, Body: echo},
		"text":           {Status: 500, Body: "you sent " + secret + ", and more that is not for others"},
		"refused token":  {Status: 200, Header: json, Body: fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer"}`, token)},
		"DPoP token":     {Status: 200, Header: json, Body: fmt.Sprintf(`{"access_token":%q,"token_type":"DPoP"}`, token)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.conf.ClientSecret, w.conf.Retry.MaxAttempts = secret, 1
			w.auth.Register(cct.Client{ID: "client", Secret: secret})
			w.auth.SetFault(&fault)
			c := grpccredentials.New(w.source(t), plaintext)
			var printed bytes.Buffer
			client := w.client(t, grpc.WithPerRPCCredentials(c), grpc.WithUnaryInterceptor(c.UnaryClientInterceptor),
				interceptor(func(ctx context.Context, opts []grpc.CallOption, invoke func(...grpc.CallOption) error) error {
					err := invoke(opts...)
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
			require.NotContains(t, status.Convert(err).Message(), "not for others")
		})
	}
}
