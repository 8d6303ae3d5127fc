package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

const (
	fewDays     = 14               // left for a certificate: a warning
	closeClocks = 5 * time.Second  // apart: what a Date in whole seconds and a slow answer may hide
	postdated   = 30 * time.Second // in what the tolerance of the server's clock is tried with
	shortLife   = time.Minute      // of a token: a warning
)

// discovery asks for the metadata.
func (e *examination) discovery(ctx context.Context) {
	m, err := e.plain.discover(ctx, e.s.issuer)
	for _, x := range e.plain.sent() {
		answer := "no answer"
		if x.status != 0 {
			answer = fmt.Sprintf("status %d", x.status)
		}
		e.say(note, "discovery", "%s: %s", x.url, answer)
	}
	if err != nil {
		if e.endpoint != "" {
			e.say(warn, "discovery", "%s", explain(err))
			return
		}
		e.fail(statusOf(err), "discovery", "%s", explain(err))
		e.stop("without metadata the token endpoint isn't known; give -token-url")
		return
	}
	e.metadata = m
	e.say(good, "discovery", "token endpoint %s; methods %s", cmp.Or(m.TokenEndpoint, "none"), list(m.TokenEndpointAuthMethodsSupported, "not listed, so client_secret_basic"))
	switch {
	case e.endpoint == "":
		e.endpoint = m.TokenEndpoint
	case e.endpoint != m.TokenEndpoint:
		e.say(warn, "discovery", "-token-url is another than that in the metadata, and is used; check which is right")
	}
	if grants := m.GrantTypesSupported; len(grants) > 0 && !slices.Contains(grants, "client_credentials") {
		e.say(warn, "discovery", "the metadata lists its grants, and client_credentials is not among them: %s", list(grants, ""))
	}
	if e.endpoint == "" {
		e.fail(statusUnusable, "discovery", "the metadata has no token_endpoint; check that the issuer is an authorization server")
		e.stop("the token endpoint isn't known; give -token-url")
	}
}

// reach sends a token request without credentials, so that none goes astray.
func (e *examination) reach(ctx context.Context) {
	if isCleartext(e.endpoint) {
		e.fail(statusUnusable, "tls", "the token URL is http, and whoever is on the way can read credentials and tokens; use https")
		e.stop("no credentials are sent over http, except to this host")
		return
	}
	w := e.plain
	if e.certified != nil && e.certifiedEndpoint() == e.endpoint {
		w = e.certified // The server may want a certificate of everybody.
	}
	_, err := w.token(ctx, &clientcredentials.Config{
		TokenURL: e.endpoint, AuthStyle: oauth2.AuthStyleInParams, Retry: e.once(),
	})
	if ctx.Err() != nil {
		return
	}
	var refusal *oauth2.RetrieveError
	switch status := statusOf(err); {
	case err == nil:
		e.fail(statusUnusable, "endpoint", "it gives a token to anybody, without credentials; check the registration of public clients at the server")
	case errors.As(err, &refusal) && isRedirect(refusal.Response.StatusCode), status == statusTemporary, status == statusUsage:
		e.fail(status, "endpoint", "%s", explain(err))
		e.stop("no credentials are sent to an endpoint that doesn't answer as one")
	case errors.As(err, &refusal) && refusal.ErrorCode != "":
		e.say(good, "endpoint", "without credentials it answers %d %s, and it doesn't redirect", refusal.Response.StatusCode, refusal.ErrorCode)
	case errors.As(err, &refusal) && slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed}, refusal.Response.StatusCode):
		e.fail(statusUnusable, "endpoint", "%s", explain(err))
		e.stop("that is no token endpoint")
	case errors.As(err, &refusal):
		e.say(warn, "endpoint", "without credentials it answers %d and no OAuth error (RFC 6749, Section 5.2)", refusal.Response.StatusCode)
	default:
		e.fail(status, "endpoint", "%s", explain(err))
		e.stop("that is no token endpoint, or not one to be trusted")
	}
	e.reportTLS(w.sent())
}

// reportTLS says what there is to know of the last connection.
func (e *examination) reportTLS(sent []exchange) {
	if len(sent) == 0 {
		return
	}
	last := sent[len(sent)-1]
	switch {
	case last.status == 0:
	case last.tls == nil:
		e.say(note, "tls", "none: the server is on this host")
	default:
		leaf := last.tls.PeerCertificates[0]
		days := int(time.Until(leaf.NotAfter).Hours() / 24)
		l, advice := good, ""
		if days < fewDays {
			l, advice = warn, "; have the server's certificate renewed"
		}
		e.say(l, "tls", "%s, %s; certificate %s, valid for another %d days%s", tls.VersionName(last.tls.Version), last.proto, chain(last.tls), days, advice)
	}
}

// chain returns the names in the chain of certificates, that of the server first.
func chain(state *tls.ConnectionState) string {
	certificates := state.PeerCertificates
	if len(state.VerifiedChains) > 0 {
		certificates = state.VerifiedChains[0]
	}
	var names []string
	for _, certificate := range certificates {
		names = append(names, fmt.Sprintf("%q", cmp.Or(certificate.Subject.CommonName, list(certificate.DNSNames, certificate.Subject.String()))))
	}
	return strings.Join(names, " by ")
}

// checkSecret looks for what gets into a secret by mistake.
func (e *examination) checkSecret() {
	if secret := e.s.secret; strings.TrimSpace(secret) != secret {
		e.say(warn, "secret", "it begins or ends with white space, which is sent too; check where it comes from")
	}
}

// checkCertificate says how long the client's certificate is valid.
func (e *examination) checkCertificate(ctx context.Context) {
	if e.certified == nil {
		return
	}
	pair, err := clientauth.CertificateFiles(e.s.certFile, e.s.keyFile)(ctx)
	if err != nil {
		return // plan has read it.
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return
	}
	days := int(time.Until(leaf.NotAfter).Hours() / 24)
	l := good
	if days < fewDays {
		l = warn
	}
	e.say(l, "certificate", "the client's, %q, is valid for another %d days", leaf.Subject.String(), days)
}

// lists reports whether m is worth a try: whether the server takes it, as far as it
// says so. Few take client_secret_jwt.
func (e *examination) lists(m *method) bool {
	switch {
	case e.s.authMethod != "":
		return true
	case e.metadata == nil || len(e.metadata.TokenEndpointAuthMethodsSupported) == 0:
		return m.name != secretJWT
	}
	return slices.Contains(e.metadata.TokenEndpointAuthMethodsSupported, m.registered())
}

// try requests a token by m.
func (e *examination) try(ctx context.Context, m *method) {
	switch {
	case !e.lists(m):
		e.say(note, m.name, "not tried: the metadata doesn't list it")
		return
	case m.name == secretBasicRaw && e.decodes == formDecoding:
		e.say(note, m.name, "not tried: the server decodes what client_secret_basic encodes")
		return
	}
	variants := []*method{m}
	if e.variesAudience(m) {
		if other, err := e.s.withAudience(ctx, m, e.endpoint); err == nil {
			variants = append(variants, other)
		}
	}
	for i, variant := range variants {
		if e.exhausted() {
			return
		}
		about := ""
		if len(variants) > 1 {
			about = []string{", the issuer as audience", ", the token URL as audience"}[i]
		}
		token, err := e.request(ctx, variant, e.s.dpop)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.refused(variant.name, about, err)
			if e.stopped {
				return
			}
			continue
		}
		e.say(good, variant.name, "works%s", about)
		e.worked[variant.name] = variant
		e.learn(variant)
		if e.method == nil {
			e.method, e.token = variant, token
		}
		return
	}
}

// learn draws conclusions from the success of m.
func (e *examination) learn(m *method) {
	if isPlain(e.s.clientID + e.s.secret) {
		return
	}
	switch m.name {
	case secretBasic:
		e.decodes = formDecoding
		e.say(good, "encoding", "the server form-decodes Basic credentials (RFC 6749, Section 2.3.1)")
	case secretBasicRaw:
		e.decodes = noDecoding
		e.say(warn, "encoding", "the server takes Basic credentials as they are, contrary to RFC 6749, Section 2.3.1; Raw does so")
	}
}

// request requests a token once, bound to that key if there is one.
func (e *examination) request(ctx context.Context, m *method, key crypto.Signer) (*oauth2.Token, error) {
	w, endpoint := e.plain, e.endpoint
	if m.cert != nil {
		w, endpoint = e.certified, e.certifiedEndpoint()
	}
	conf := e.s.config(endpoint, m)
	conf.DPoP = key
	conf.Retry = e.once()
	return w.token(ctx, conf)
}

// once returns the policy of trying nothing again.
func (e *examination) once() clientcredentials.RetryPolicy {
	return clientcredentials.RetryPolicy{MaxAttempts: 1, AttemptTimeout: e.timeout}
}

// certifiedEndpoint returns the token endpoint for clients with a certificate, RFC
// 8705, Section 5.
func (e *examination) certifiedEndpoint() string {
	if e.metadata != nil && e.s.tokenURL == "" {
		return cmp.Or(e.metadata.MTLSEndpointAliases.TokenEndpoint, e.endpoint)
	}
	return e.endpoint
}

// exhausted stops before the server has refused the client too often, which might
// lock it out.
func (e *examination) exhausted() bool {
	if e.refusals < e.patience {
		return false
	}
	e.stop("%d refusals so far; more might lock the client out (-max-refusals)", e.refusals)
	return true
}

// refused tells of a token request that failed, and decides whether to go on.
func (e *examination) refused(subject, about string, err error) {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		status := statusOf(err)
		if status == statusUsage { // Nothing was sent.
			e.say(note, subject, "not tried%s: %s", about, explain(err))
			return
		}
		e.fail(status, subject, "%s", explain(err))
		e.stop("the next request would fare no better")
		return
	}
	status := refusal.Response.StatusCode
	switch code := refusal.ErrorCode; {
	case code == "unauthorized_client" && status == http.StatusUnauthorized:
		// Keycloak's word for a wrong secret.
	case slices.Contains([]string{"invalid_scope", "invalid_target", "unauthorized_client", "unsupported_grant_type"}, code):
		e.fail(statusRefused, subject, "the credentials are accepted, but %s", explain(err))
		e.stop("another method would change nothing")
		return
	}
	if isRedirect(status) || isOverloaded(status) {
		e.fail(statusOf(err), subject, "%s", explain(err))
		e.stop("the server can't be asked more at the moment")
		return
	}
	e.refusals++
	advice := ""
	switch refusal.ErrorCode {
	case "use_dpop_nonce", "invalid_dpop_proof":
		advice = "; " + adviseCode(refusal.ErrorCode, status)
	}
	e.say(note, subject, "refused%s: status %d %s %.200q%s", about, status, refusal.ErrorCode, refusal.ErrorDescription, advice)
}

// isOverloaded reports whether the status is a temporary one that speaks of load. A
// server may answer 500 to any request that it doesn't understand.
func isOverloaded(status int) bool {
	return isTemporaryStatus(status) && status != http.StatusInternalServerError
}

// probe requests a token by auth, to find out something. done says whether the server
// has answered.
func (e *examination) probe(ctx context.Context, subject string, auth clientcredentials.ClientAuth) (accepted, done bool) {
	if e.exhausted() {
		return false, false
	}
	_, err := e.request(ctx, &method{name: subject, auth: auth}, e.s.dpop)
	var refusal *oauth2.RetrieveError
	switch {
	case ctx.Err() != nil:
		return false, false
	case err == nil:
		return true, true
	case errors.As(err, &refusal) && !isOverloaded(refusal.Response.StatusCode):
		e.refusals++
		return false, true
	}
	e.fail(statusOf(err), subject, "%s", explain(err))
	e.stop("the server can't be asked more at the moment")
	return false, false
}

// formDecoding finds out whether a secret with other characters would be understood:
// that of today has none that needs encoding.
func (e *examination) formDecoding(ctx context.Context) {
	if e.worked[secretBasic] == nil {
		return
	}
	accepted, done := e.probe(ctx, "encoding", percentEncoded{})
	switch {
	case !done:
	case accepted:
		e.decodes = formDecoding
		e.say(good, "encoding", "the server form-decodes Basic credentials (RFC 6749, Section 2.3.1): a secret may have any characters")
	default:
		e.decodes = noDecoding
		e.say(warn, "encoding", "the server takes Basic credentials as they are, contrary to RFC 6749, Section 2.3.1; Raw does so too, and the next secret may need it")
	}
}

// percentEncoded is client_secret_basic with each byte of the secret encoded.
type percentEncoded struct{}

func (percentEncoded) Method() string { return secretBasic }

func (percentEncoded) Authenticate(_ context.Context, attempt *clientcredentials.Attempt) error {
	var secret strings.Builder
	for _, c := range []byte(attempt.ClientSecret) {
		fmt.Fprintf(&secret, "%%%02X", c)
	}
	credentials := url.QueryEscape(attempt.ClientID) + ":" + secret.String()
	attempt.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
	return nil
}

// postdate finds out whether the server would take assertions from a clock that is
// fast.
func (e *examination) postdate(ctx context.Context) {
	worked := e.worked[privateKeyJWT]
	if worked == nil {
		return
	}
	auth, isKey := worked.auth.(*clientauth.PrivateKeyJWT)
	if !isKey {
		return
	}
	accepted, done := e.probe(ctx, "clock", &postdatedJWT{auth})
	switch {
	case !done:
	case accepted:
		e.say(good, "clock", "the server takes an assertion from %v ahead", postdated)
	default:
		e.say(note, "clock", "the server refuses an assertion from %v ahead: keep this machine's clock right", postdated)
	}
}

// A postdatedJWT is private_key_jwt with an iat that is in the future.
type postdatedJWT struct{ *clientauth.PrivateKeyJWT }

func (a *postdatedJWT) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	if err := a.PrivateKeyJWT.Authenticate(ctx, attempt); err != nil {
		return err
	}
	signing, err := a.Key(ctx)
	if err != nil {
		return err
	}
	key, err := jws.NewKey(signing.Signer, cmp.Or(a.Algorithm, signing.Algorithm))
	if err != nil {
		return err
	}
	header := map[string]any{"typ": "JWT"}
	if kid := cmp.Or(a.KeyID, signing.KeyID); kid != "" {
		header["kid"] = kid
	}
	if signing.Certificate != nil {
		header["x5t#S256"] = parseToken(attempt.Form.Get("client_assertion")).Header["x5t#S256"]
	}
	issued := time.Now().Add(postdated)
	assertion, err := key.Sign(header, map[string]any{
		"iss": attempt.ClientID,
		"sub": attempt.ClientID,
		"aud": cmp.Or(a.Audience, attempt.Issuer, attempt.TokenURL),
		"iat": issued.Unix(),
		"exp": issued.Add(time.Minute).Unix(),
		"jti": rand.Text(),
	})
	if err != nil {
		return err
	}
	attempt.Form.Set("client_assertion", assertion)
	return nil
}

// dpop finds out whether the server binds tokens to a key.
func (e *examination) dpop(ctx context.Context) {
	if e.method == nil {
		return
	}
	if e.metadata != nil && len(e.metadata.DPoPSigningAlgValuesSupported) == 0 {
		e.say(note, "dpop", "not tried: the metadata lists no algorithm for it")
		return
	}
	if e.exhausted() {
		return
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return
	}
	_, err = e.request(ctx, e.method, key)
	var unbound *clientcredentials.ResponseError
	switch {
	case ctx.Err() != nil:
	case err == nil:
		e.say(good, "dpop", "the server binds tokens to a key (RFC 9449), if there is one: see Config.DPoP")
	case errors.As(err, &unbound):
		e.say(note, "dpop", "the server doesn't bind tokens to a key")
	default:
		e.say(note, "dpop", "the server doesn't take a DPoP proof: %s", explain(err))
	}
}

// reportToken says what the token is like.
func (e *examination) reportToken() {
	token := e.token
	if token == nil {
		return
	}
	life := time.Duration(token.ExpiresIn) * time.Second
	switch {
	case token.ExpiresIn == 0:
		e.say(warn, "token", "the server doesn't say when it expires (RFC 6749, Section 5.1, recommends expires_in): it is used until an API refuses it")
	case life < shortLife:
		e.say(warn, "token", "it lives for %s only: many token requests; make it some minutes", period(life))
	default:
		e.say(good, "token", "it lives for %s", period(life))
	}
	parsed := parseToken(token.AccessToken)
	binding := ""
	if parsed.Format == "jwt" {
		binding = "; audience " + list(texts(parsed.Claims["aud"]), "none") + "; bound " + parsed.binding()
	}
	if token.TokenType == "" {
		e.say(warn, "token", "it has no token_type, which RFC 6749, Section 5.1, requires; it is taken for Bearer")
	}
	e.say(good, "token", "type %s, %s%s", token.Type(), map[string]string{"jwt": "a JWT", "jwe": "an encrypted JWT", "opaque": "opaque"}[parsed.Format], binding)
	e.reportScope(strings.Fields(grantedScope(token, e.s.scopes)), e.s.scopeList())
}

// reportScope compares what was granted with what was asked for.
func (e *examination) reportScope(granted, asked []string) {
	var lacking, more []string
	for _, scope := range asked {
		if !slices.Contains(granted, scope) {
			lacking = append(lacking, scope)
		}
	}
	for _, scope := range granted {
		if !slices.Contains(asked, scope) {
			more = append(more, scope)
		}
	}
	switch {
	case len(lacking) > 0:
		e.say(warn, "scope", "asked for and not granted: %s; check what the client may ask for", list(lacking, ""))
	case len(more) > 0:
		e.say(note, "scope", "granted without being asked for: %s", list(more, ""))
	default:
		e.say(good, "scope", "granted as asked: %s", list(granted, "none"))
	}
}

// reportTimes says how far the clocks are apart, and how long the server takes.
func (e *examination) reportTimes() {
	exchanges := e.plain.sent()
	if e.certified != nil {
		exchanges = append(exchanges, e.certified.sent()...)
	}
	var reused, opened []time.Duration
	for _, x := range exchanges {
		switch {
		case x.status == 0 || x.method != http.MethodPost:
		case x.reused:
			reused = append(reused, x.answered.Sub(x.sent))
		default:
			opened = append(opened, x.answered.Sub(x.sent))
		}
	}
	if skew, known := clockSkew(exchanges); known {
		direction := "behind"
		if skew > 0 {
			direction = "ahead of"
		}
		if max(skew, -skew) <= closeClocks {
			e.say(good, "clock", "the server's agrees with that of this machine")
		} else {
			e.say(warn, "clock", "the server's is %s %s that of this machine: assertions and DPoP proofs may be refused; correct whichever is wrong", period(skew), direction)
		}
	}
	latencies, connection := reused, "open connections"
	if len(reused) == 0 {
		latencies, connection = opened, "new connections"
	}
	if len(latencies) > 0 {
		slices.Sort(latencies)
		e.say(good, "latency", "%v, the median of token requests on %s: %d", latencies[len(latencies)/2].Round(100*time.Microsecond), connection, len(latencies))
	}
}

// clockSkew returns by how much the server's clock is ahead, by the last Date (RFC
// 9110, Section 6.6.1), which is in whole seconds.
func clockSkew(exchanges []exchange) (time.Duration, bool) {
	for _, x := range slices.Backward(exchanges) {
		date, err := http.ParseTime(x.date)
		if err != nil {
			continue
		}
		switch {
		case date.Add(time.Second).Before(x.sent):
			return date.Sub(x.sent), true
		case date.After(x.answered):
			return date.Sub(x.answered), true
		}
		return 0, true
	}
	return 0, false
}
