package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
)

// TestMutualTLS shows which client certificates the server accepts, and that it refuses
// all others (RFC 8705).
func TestMutualTLS(t *testing.T) {
	full := x509.Certificate{Subject: pkix.Name{CommonName: "client"}, DNSNames: []string{"client.example", "other.example"}}
	good := clientCertificate(testPKI().ca, full)
	other := clientCertificate(testPKI().ca, x509.Certificate{Subject: pkix.Name{CommonName: "other"}, DNSNames: []string{"x.example"}})
	forged := clientCertificate(nil, full)

	clients := []registration{
		{id: "tls-subject_dn", metadata: map[string]any{"tls_client_auth_subject_dn": good.Leaf.Subject.String()}},
		{id: "tls-san_dns", metadata: map[string]any{"tls_client_auth_san_dns": "client.example"}},
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
