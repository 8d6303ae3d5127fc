package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMutualTLS shows which client certificates the server accepts, and that it refuses
// all others (RFC 8705).
func TestMutualTLS(t *testing.T) {
	uri, err := url.Parse("spiffe://example/client")
	require.NoError(t, err)
	full := x509.Certificate{
		Subject:        pkix.Name{Country: []string{"EX"}, Organization: []string{"Example"}, CommonName: "client"},
		DNSNames:       []string{"client.example", "other.example"},
		IPAddresses:    []net.IP{net.IPv4(192, 0, 2, 1)},
		EmailAddresses: []string{"client@client.example"},
		URIs:           []*url.URL{uri},
	}
	good := clientCertificate(testPKI().ca, full)
	other := clientCertificate(testPKI().ca, x509.Certificate{Subject: pkix.Name{CommonName: "other"}, DNSNames: []string{"x.example"}})
	forged := clientCertificate(nil, full)

	clients := []registration{
		{id: "tls-subject_dn", metadata: map[string]any{"tls_client_auth_subject_dn": good.Leaf.Subject.String()}},
		{id: "tls-san_dns", metadata: map[string]any{"tls_client_auth_san_dns": "client.example"}},
		{id: "tls-san_uri", metadata: map[string]any{"tls_client_auth_san_uri": "spiffe://example/client"}},
		{id: "tls-san_ip", metadata: map[string]any{"tls_client_auth_san_ip": "192.0.2.1"}},
		{id: "tls-san_email", metadata: map[string]any{"tls_client_auth_san_email": "client@client.example"}},
		{id: "tls-self_signed", keys: []jose.JSONWebKey{certificateKey(forged)}},
	}
	for i := range clients {
		clients[i].ttl = time.Hour
		clients[i].method = tlsAuth
		if clients[i].keys != nil {
			clients[i].method = selfSignedTLS
			clients[i].metadata = map[string]any{}
		}
		clients[i].metadata["tls_client_certificate_bound_access_tokens"] = true
	}
	// RFC 8705, Section 3: any client's tokens may be bound to a certificate.
	secret := secretClient("tls-secret", secretPost, map[string]any{"tls_client_certificate_bound_access_tokens": true})
	at := oidcProviderTLS.start(t, append(clients, secret)...)[0]

	for _, c := range clients {
		t.Run(c.id, func(t *testing.T) {
			right, wrong := good, forged
			if c.method == selfSignedTLS {
				right, wrong = forged, good
			}
			ask := func(presented ...tls.Certificate) reply {
				return send(t, plainRequest(t, at, url.Values{"client_id": {c.id}}), presented...)
			}
			got := ask(right)
			requireToken(t, at, c.id, got, right)

			for name, presented := range map[string][]tls.Certificate{"wrong": {wrong}, "other": {other}, "none": nil} {
				refusal := ask(presented...)
				assert.Equal(t, "invalid_client", refusal.Error, name)
				assert.Equal(t, http.StatusUnauthorized, refusal.status, name)
				api := send(t, plainCall(t, at, "Bearer", got.AccessToken), presented...)
				assert.Equal(t, http.StatusUnauthorized, api.status, name)
				assert.Equal(t, `Bearer error="invalid_token"`, api.header.Get("WWW-Authenticate"), name)
			}

			// Section 2: the server finds the client by its client_id.
			assert.Equal(t, "invalid_request", send(t, plainRequest(t, at, nil), right).Error)
			// The issuer's own token endpoint doesn't ask for certificates.
			plain := at
			plain.token = at.issuer + "/token"
			r := plainRequest(t, plain, url.Values{"client_id": {c.id}})
			assert.Equal(t, "invalid_client", send(t, r, right).Error)
		})
	}

	t.Run("bound_with_a_secret", func(t *testing.T) {
		form := url.Values{"client_id": {secret.id}, "client_secret": {secret.secret}}
		requireToken(t, at, secret.id, send(t, plainRequest(t, at, form), other), other)
		assert.Equal(t, "invalid_grant", send(t, plainRequest(t, at, form)).Error)
	})
}

// TestMetadata: each provider publishes its own metadata (RFC 8414, Section 2), which
// names the token endpoint for certificates.
func TestMetadata(t *testing.T) {
	t.Parallel()
	for _, p := range []*program{oidcProvider, oidcProviderNonce, oidcProviderTLS} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.start(t)
			var metadata struct {
				Issuer  string   `json:"issuer"`
				Token   string   `json:"token_endpoint"`
				Methods []string `json:"token_endpoint_auth_methods_supported"`
				Algs    []string `json:"token_endpoint_auth_signing_alg_values_supported"`
				DPoP    []string `json:"dpop_signing_alg_values_supported"`
				Aliases struct {
					Token string `json:"token_endpoint"`
				} `json:"mtls_endpoint_aliases"`
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.at.issuer+"/.well-known/openid-configuration", nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, exchange(t, r, &metadata).StatusCode)

			assert.Equal(t, p.at.issuer, metadata.Issuer)
			assert.Equal(t, p.at.issuer+"/token", metadata.Token)
			methods := []string{secretBasic, secretPost, secretJWT, privateKeyJWT}
			if p == oidcProviderTLS {
				methods = append(methods, tlsAuth, selfSignedTLS)
				assert.Equal(t, p.at.token, metadata.Aliases.Token)
				assert.NotEqual(t, metadata.Token, metadata.Aliases.Token)
			} else {
				assert.Equal(t, p.at.token, metadata.Token)
				assert.Empty(t, metadata.Aliases.Token)
			}
			assert.ElementsMatch(t, methods, metadata.Methods)
			assert.ElementsMatch(t, append(hmacAlgs[:3:3], signatureAlgs...), metadata.Algs)
			assert.ElementsMatch(t, signatureAlgs, metadata.DPoP)
		})
	}
}
