package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestDemonstration(t *testing.T) {
	t.Parallel()
	// A refresh starts in the second half of a token's life, and must end before the expiry.
	p := plan{calls: 50, callers: 4, lifetime: 2 * time.Second, latency: 400 * time.Millisecond}
	reporttest.Run(t, 10, func(ctx context.Context, out io.Writer) error {
		r := report.New(out)
		if err := demonstrate(ctx, r, p); err != nil {
			return err
		}
		return r.Result()
	}, demoSecret)
}

func TestDemonstrationIsInterrupted(t *testing.T) {
	t.Parallel()
	reporttest.Interrupt(t, 900*time.Millisecond, func(ctx context.Context, out io.Writer) error { // In the third step.
		return run(ctx, func(string) string { return "" }, out)
	})
}

func TestEnvironment(t *testing.T) {
	const secret = "p@ss/word 1"
	client := clientcredentialstest.Client{ID: "app", Secret: secret, Scopes: []string{"read"}}
	server := clientcredentialstest.Start(t, client)
	valid := map[string]string{
		"TOKEN_URL":     server.TokenURL,
		"CLIENT_ID":     client.ID,
		"CLIENT_SECRET": client.Secret,
		"API_URL":       server.APIURL,
	}
	// The API of another authorization server doesn't know the token.
	foreign := clientcredentialstest.Start(t)
	// This API wants a scope.
	scoped := clientcredentialstest.Start(t, clientcredentialstest.Client{ID: client.ID, Secret: client.Secret})
	scoped.API.Scope = "write"
	// This API doesn't work.
	broken := clientcredentialstest.Start(t, client)
	broken.API.Handler = http.NotFoundHandler()
	const nobody = "http://127.0.0.1:1/token"

	for name, test := range map[string]struct {
		env     map[string]string // replaces what is in valid
		want    []string          // in the output, or in the error
		success bool
	}{
		"valid": {
			success: true,
			want: []string{
				`type Bearer, scope "read", expires in `, "token requests: 1\n",
				"10 API calls", "0 further token requests", "checks passed",
			},
		},
		"with scope": {
			env:     map[string]string{"SCOPES": "read"},
			success: true,
			want:    []string{`scope "read"`},
		},
		"one missing": {
			env:  map[string]string{"CLIENT_SECRET": ""},
			want: []string{"missing in the environment: CLIENT_SECRET (for the demonstration, set none of "},
		},
		"several missing": {
			env:  map[string]string{"TOKEN_URL": "", "API_URL": ""},
			want: []string{"missing in the environment: TOKEN_URL, API_URL ("},
		},
		"only SCOPES": {
			env:  map[string]string{"TOKEN_URL": "", "CLIENT_ID": "", "CLIENT_SECRET": "", "API_URL": "", "SCOPES": "read"},
			want: []string{"missing in the environment: TOKEN_URL, CLIENT_ID, CLIENT_SECRET, API_URL ("},
		},
		"TOKEN_URL without scheme": {
			env:  map[string]string{"TOKEN_URL": "login.example.com/token"},
			want: []string{"TokenURL is not absolute", "hint: TOKEN_URL must be"},
		},
		"TOKEN_URL of nobody": {
			env:  map[string]string{"TOKEN_URL": nobody},
			want: []string{nobody, "hint: TOKEN_URL must be"},
		},
		"TOKEN_URL with the wrong path": {
			env:  map[string]string{"TOKEN_URL": server.TokenURL + "s"},
			want: []string{"404 Not Found", "hint: the server refused; check TOKEN_URL"},
		},
		"TOKEN_URL is the API": {
			env:  map[string]string{"TOKEN_URL": server.APIURL},
			want: []string{"401 Unauthorized", "hint: the server refused; check TOKEN_URL"},
		},
		"wrong CLIENT_ID": {
			env:  map[string]string{"CLIENT_ID": "another"},
			want: []string{"invalid_client", "hint: check CLIENT_ID and CLIENT_SECRET"},
		},
		"wrong CLIENT_SECRET": {
			env:  map[string]string{"CLIENT_SECRET": secret + "x"},
			want: []string{"invalid_client", "hint: check CLIENT_ID and CLIENT_SECRET"},
		},
		"wrong SCOPES": {
			env:  map[string]string{"SCOPES": "read admin"},
			want: []string{"invalid_scope", "hint: check SCOPES"},
		},
		"API answers 401": {
			env:  map[string]string{"API_URL": foreign.APIURL},
			want: []string{"calling the API: the API answered 401 Unauthorized: it doesn't accept the token"},
		},
		"API answers 403": {
			env:  map[string]string{"TOKEN_URL": scoped.TokenURL, "API_URL": scoped.APIURL, "SCOPES": "read"},
			want: []string{"the API answered 403 Forbidden: the token doesn't allow this call; check SCOPES"},
		},
		"API answers 404": {
			env:  map[string]string{"TOKEN_URL": broken.TokenURL, "API_URL": broken.APIURL},
			want: []string{"the API answered 404 Not Found"},
		},
		"API_URL of nobody": {
			env:  map[string]string{"API_URL": nobody},
			want: []string{"calling the API: Get ", nobody},
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := func(name string) string {
				if value, ok := test.env[name]; ok {
					return value
				}
				return valid[name]
			}
			var out bytes.Buffer
			err := run(t.Context(), env, &out)
			text := out.String()
			if test.success {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
				require.NotContains(t, text, "checks passed")
				text += err.Error()
			}
			for _, want := range test.want {
				require.Contains(t, text, want)
			}
			reporttest.RequireNoSecret(t, text, secret, "p%40ss")
		})
	}
}
