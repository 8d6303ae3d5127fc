package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/invisible"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

const (
	fewDays     = 14               // doctor warns of a certificate that expires sooner
	closeClocks = 5 * time.Second  // two clocks agree if they differ by this or less
	postdated   = 30 * time.Second // how far in the future the assertion of probeClock is
	shortLife   = time.Minute      // doctor warns of a token that lives shorter
	maxListed   = 1 << 10          // what doctor shows of a list from the server, in bytes
)

// discover requests the metadata.
func (e *examination) discover(ctx context.Context) {
	m, err := e.plain.discover(ctx, e.settings.Issuer)
	for _, x := range e.plain.sent() {
		answer := "no answer"
		if x.status != 0 {
			answer = fmt.Sprintf("status %d", x.status)
		}
		e.say(note, "discovery", "%s: %s", x.url, answer)
	}
	switch {
	case err == nil:
	case e.endpoint != "":
		e.say(warn, "discovery", "%s", e.diagnose(e.plain, err))
		return
	default:
		e.failFor("discovery", e.plain, err)
		e.stop("the token endpoint is unknown without metadata; give -token-url")
		return
	}
	e.metadata = m
	e.say(good, "discovery", "token endpoint %s; methods %s", cmp.Or(m.TokenEndpoint, "none"), e.listedMethods())
	switch {
	case e.endpoint == "":
		e.endpoint = cmp.Or(m.TokenEndpoint, m.MTLSEndpointAliases.TokenEndpoint) // Discover makes sure of one.
	case e.endpoint != m.TokenEndpoint:
		e.say(warn, "discovery", "-token-url is used, but the metadata has another token endpoint; check which is right")
	}
	if grants := m.GrantTypesSupported; len(grants) > 0 && !slices.Contains(grants, "client_credentials") {
		e.say(note, "discovery", "the metadata lists its grant types without client_credentials: %s; doctor goes on, because servers often list too little", list(grants, ""))
	}
	if e.listsNone = e.listsNoneOf(e.methods...); e.listsNone {
		e.say(note, "discovery", "the metadata lists none of the methods that there are credentials for; doctor tries them, because servers often list too little")
	}
}

// reach sends a token request without credentials, so that a wrong server gets none.
func (e *examination) reach(ctx context.Context) {
	if isCleartext(e.endpoint) {
		e.fail(aboutEndpoint, "tls", "the token URL is http, so that others on the network can read the credentials and the tokens", "use https")
		e.stop("doctor doesn't send credentials over http, except to this machine")
		return
	}
	w := e.plain
	if e.certified != nil && e.certifiedEndpoint() == e.endpoint {
		w = e.certified // Some servers require a certificate of everybody.
	}
	_, err := w.token(ctx, &clientcredentials.Config{
		TokenURL: e.endpoint, AuthStyle: oauth2.AuthStyleInParams, Retry: e.once(),
	}, nil)
	if ctx.Err() != nil {
		return
	}
	refused, ok := refusalOf(err)
	switch {
	case err == nil:
		e.fail(aboutServer, "endpoint", "it issues a token without credentials", "check the registration of public clients at the server")
	case !ok, slices.Contains([]topic{aboutServer, aboutFault, aboutEndpoint}, e.diagnose(w, err).topic):
		e.failFor("endpoint", w, err)
		e.stop("doctor sends credentials only to an endpoint that answers like a token endpoint")
	case refused.code != "":
		e.say(good, "endpoint", "without credentials it answers %d %s, and it doesn't redirect", refused.status, refused.code)
	default:
		e.say(warn, "endpoint", "without credentials it answers %d without an OAuth error (RFC 6749, Section 5.2)", refused.status)
	}
	e.reportTLS(w.sent())
}

// reportTLS describes the connection of the last exchange.
func (e *examination) reportTLS(sent []exchange) {
	if len(sent) == 0 {
		return
	}
	last := sent[len(sent)-1]
	switch {
	case last.status == 0:
	case last.tls == nil:
		e.say(note, "tls", "none: the server is on this machine")
	default:
		days, l := remaining(last.tls.PeerCertificates[0])
		advice := ""
		if l == warn {
			advice = "; the server's certificate needs renewal"
		}
		e.say(l, "tls", "%s, %s; certificate %s, valid for another %d days%s", tls.VersionName(last.tls.Version), last.proto, chain(last.tls), days, advice)
	}
}

// remaining returns for how many more days a certificate is valid, and the level for
// that.
func remaining(certificate *x509.Certificate) (days int, l level) {
	days = int(time.Until(certificate.NotAfter).Hours() / 24)
	if days < fewDays {
		return days, warn
	}
	return days, good
}

// chain returns the names in the chain of certificates, the server's first.
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

// checkSecret looks for common mistakes in the secret.
func (e *examination) checkSecret() {
	secret := e.settings.Secret
	if found := invisible.Find(secret, invisible.Is); found != "" {
		e.say(warn, "secret", "it contains %s, which is sent as well; check where it comes from", found)
	} else if strings.TrimSpace(secret) != secret {
		e.say(warn, "secret", "it begins or ends with white space, which is sent as well; check where it comes from")
	}
	if data, err := os.ReadFile(e.settings.SecretFile); err == nil && !bytes.Equal(keyfile.Text(data), data) {
		e.say(warn, "secret", "its file begins with a byte order mark, which the library removes but other programs send; save the file without it")
	}
}

// checkCertificate reports for how long the client's certificate is valid.
func (e *examination) checkCertificate() {
	if e.certificate == nil {
		return
	}
	days, l := remaining(e.certificate)
	e.say(l, "certificate", "the client's certificate, %q, is valid for another %d days", e.certificate.Subject.String(), days)
}

// isPromising reports whether to try m. If the metadata lists none of the methods that there
// are credentials for, all are tried but client_secret_jwt: a server hardly accepts that
// without listing it.
func (e *examination) isPromising(m *method) bool {
	switch {
	case e.settings.AuthMethod != "" || e.isListed(m):
		return true
	case slices.ContainsFunc(e.methods, e.isListed):
		return false
	}
	return m.Name != secretJWT
}

// try requests a token with m, with one audience after the other.
func (e *examination) try(ctx context.Context, m *method) {
	switch {
	case e.settled:
		return
	case !e.isPromising(m):
		e.say(note, m.Name, "not tried: the metadata doesn't list it")
		return
	case m.Name == secretBasicRaw && e.decoding == decodesForm:
		e.say(note, m.Name, "not tried: the server decodes what client_secret_basic encodes")
		return
	case m.Name == secretBasicRaw && e.worked[secretPost] != nil:
		e.say(note, m.Name, "not tried: client_secret_post takes any secret")
		return
	}
	algorithm := cmp.Or(e.settings.Algorithm, e.listedAlgorithm(ctx, m))
	if algorithm != e.settings.Algorithm {
		if other, err := e.settings.With(ctx, m, algorithm, m.Audience); err == nil {
			m = other
		}
	}
	variants, about := []*method{m}, []string{""}
	if e.variesAudience(m) {
		if other, err := e.settings.With(ctx, m, algorithm, e.endpoint); err == nil {
			variants, about = append(variants, other), []string{"with the issuer as audience", "with the token URL as audience"}
		}
	}
	for i, variant := range variants {
		if e.isExhausted() {
			return
		}
		token, err := e.request(ctx, variant, e.settings.DPoP)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			e.say(good, variant.Name, "%s", strings.TrimSpace("works "+about[i]))
			e.accepted(variant, token)
			return
		}
		if e.refused(variant, about[i], err); e.stopped || e.settled {
			return
		}
	}
}

// listedAlgorithm returns the algorithm that m signs with because the metadata lists it. It
// is empty if m would use the same one without metadata.
func (e *examination) listedAlgorithm(ctx context.Context, m *method) string {
	if e.metadata == nil || m.Auth == nil {
		return ""
	}
	signsWith := func(listed []string) string {
		attempt := &clientcredentials.Attempt{
			TokenURL: e.endpoint, ClientID: e.settings.ClientID, ClientSecret: e.settings.Secret, SigningAlgorithms: listed,
			Header: make(http.Header), Form: make(url.Values),
		}
		if m.Auth.Authenticate(ctx, attempt) != nil { // The token request reports it.
			return ""
		}
		return parseToken(attempt.Form.Get("client_assertion")).algorithm()
	}
	if algorithm := signsWith(e.metadata.TokenEndpointAuthSigningAlgValuesSupported); algorithm != signsWith(nil) {
		return algorithm
	}
	return ""
}

// accepted records that m got token, and what that says about the server.
func (e *examination) accepted(m *method, token *oauth2.Token) {
	e.worked[m.Name] = m
	if e.method == nil {
		e.method, e.token = m, token
	}
	if isPlain(e.settings.ClientID + e.settings.Secret) {
		return
	}
	switch m.Name {
	case secretBasic:
		e.decoding = decodesForm
		e.say(good, "encoding", "the server form-decodes Basic credentials (RFC 6749, Section 2.3.1)")
	case secretBasicRaw:
		e.decoding = decodesNothing
		e.say(warn, "encoding", "the server doesn't decode Basic credentials, contrary to RFC 6749, Section 2.3.1; Raw sends them without encoding")
	}
}

// request requests a token once, bound to key if that isn't nil.
func (e *examination) request(ctx context.Context, m *method, key crypto.Signer) (*oauth2.Token, error) {
	w, endpoint := e.route(m)
	conf := new(clientcredentials.Config)
	if e.metadata != nil {
		if known, err := e.settings.discovered(m, e.metadata); err == nil {
			conf = known // It knows the server's algorithms.
		}
	}
	e.settings.Fill(conf, m)
	conf.TokenURL = endpoint
	conf.DPoP = key
	conf.Retry = e.once()
	return w.token(ctx, conf, nil)
}

// once returns a policy without retries.
func (e *examination) once() clientcredentials.RetryPolicy {
	return clientcredentials.RetryPolicy{MaxAttempts: 1, AttemptTimeout: e.attemptTimeout}
}

// route returns the wire and the token endpoint for m.
func (e *examination) route(m *method) (*wire, string) {
	if m.Cert != nil {
		return e.certified, e.certifiedEndpoint()
	}
	return e.plain, e.endpoint
}

// certifiedEndpoint returns the token endpoint for clients with a certificate, RFC
// 8705, Section 5.
func (e *examination) certifiedEndpoint() string {
	if e.metadata != nil && e.settings.TokenURL == "" {
		return cmp.Or(e.metadata.MTLSEndpointAliases.TokenEndpoint, e.endpoint)
	}
	return e.endpoint
}

// isExhausted stops the examination if more refusals might lock the client out, and
// reports whether it did.
func (e *examination) isExhausted() bool {
	if e.refusals < e.maxRefusals {
		return false
	}
	e.stop("%d refusals so far; more might lock the client out (-max-refusals)", e.refusals)
	return true
}

// refused reports that a token request with m failed with err, and decides whether to go
// on. about says what was special about the request.
func (e *examination) refused(m *method, about string, err error) {
	w, _ := e.route(m)
	d := e.diagnose(w, err)
	refused, ok := refusalOf(err)
	switch {
	case !ok && d.status == statusUsage: // Nothing was sent.
		e.say(note, m.Name, "%s: %s", strings.TrimSpace("not tried "+about), d)
		d.topic, d.subject = aboutNothing, m.Name
		e.reasons = append(e.reasons, d)
		return
	case !ok, isOverloaded(refused):
		e.failFor(m.Name, w, err)
		e.stop("the next request would probably fail as well")
		return
	}
	e.refusals++
	e.reasons = append(e.reasons, d)
	if about != "" {
		about += ": "
	}
	e.say(note, m.Name, "%s%s", about, refused)
	if e.settings.DPoP == nil && (d.topic == aboutBinding || d.topic == aboutRequest) {
		e.unbound = cmp.Or(e.unbound, m)
	}
	if d.settled && e.method == nil {
		e.settled = true
		e.say(note, "methods", "no more are tried: the answer isn't about the method")
	}
}

// isOverloaded reports whether the refusal is a temporary one. It excludes 500, which a
// server may answer to any request that it doesn't understand.
func isOverloaded(r *refusal) bool {
	return r.isTemporary() && r.status != http.StatusInternalServerError
}

// probe requests a token with auth to find out something else. It reports whether the
// server accepted the request, and whether there is an answer at all.
func (e *examination) probe(ctx context.Context, subject string, auth clientcredentials.ClientAuth) (accepted, answered bool) {
	if e.isExhausted() {
		return false, false
	}
	_, err := e.request(ctx, &method{Name: subject, Auth: auth}, e.settings.DPoP)
	refused, ok := refusalOf(err)
	switch {
	case ctx.Err() != nil:
		return false, false
	case err == nil:
		return true, true
	case ok && !isOverloaded(refused):
		e.refusals++
		return false, true
	}
	e.failFor(subject, e.plain, err)
	e.stop("the next request would probably fail as well")
	return false, false
}

// probeDecoding finds out whether the server decodes Basic credentials. The secret
// itself doesn't show it: it has no characters that need encoding.
func (e *examination) probeDecoding(ctx context.Context) {
	if e.worked[secretBasic] == nil {
		return
	}
	accepted, answered := e.probe(ctx, "encoding", percentEncoded{})
	switch {
	case !answered:
	case accepted:
		e.decoding = decodesForm
		e.say(good, "encoding", "the server form-decodes Basic credentials (RFC 6749, Section 2.3.1): a secret may contain any characters")
	default:
		e.decoding = decodesNothing
		e.say(warn, "encoding", "the server doesn't decode Basic credentials, contrary to RFC 6749, Section 2.3.1; %s", e.otherThanBasic())
	}
}

// otherThanBasic says what to use if the server doesn't decode Basic credentials.
func (e *examination) otherThanBasic() string {
	if e.worked[secretPost] != nil {
		return "client_secret_post takes any secret"
	}
	return "Raw sends them without encoding, which the next secret may need"
}

// percentEncoded is client_secret_basic with every byte of the secret encoded.
type percentEncoded struct{}

func (percentEncoded) Method() string { return secretBasic }

func (percentEncoded) Authenticate(_ context.Context, attempt *clientcredentials.Attempt) error {
	var secret strings.Builder
	for _, c := range []byte(attempt.ClientSecret) {
		fmt.Fprintf(&secret, "%%%02X", c)
	}
	attempt.Header.Set("Authorization", "Basic "+redact.BasicCredentials(url.QueryEscape(attempt.ClientID), secret.String()))
	return nil
}

// probeClock finds out whether the server accepts assertions of a client whose clock is
// fast.
func (e *examination) probeClock(ctx context.Context) {
	worked := e.worked[privateKeyJWT]
	if worked == nil {
		return
	}
	auth, isKey := worked.Auth.(*clientauth.PrivateKeyJWT)
	if !isKey {
		return
	}
	accepted, answered := e.probe(ctx, "clock", &postdatedJWT{auth})
	switch {
	case !answered:
	case accepted:
		e.say(good, "clock", "the server accepts an assertion from %v in the future", postdated)
	default:
		e.say(note, "clock", "the server refuses an assertion from %v in the future: keep the clock of this machine right", postdated)
	}
}

// A postdatedJWT is private_key_jwt with an iat in the future.
type postdatedJWT struct{ *clientauth.PrivateKeyJWT }

func (a *postdatedJWT) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	if err := a.PrivateKeyJWT.Authenticate(ctx, attempt); err != nil {
		return err
	}
	signing, err := a.Key(ctx)
	if err != nil {
		return err
	}
	made := parseToken(attempt.Form.Get("client_assertion"))
	key, err := jws.NewKey(signing.Signer, made.algorithm())
	if err != nil {
		return err
	}
	delete(made.Header, "alg") // Sign sets it.
	issued := time.Now().Add(postdated)
	made.Claims["iat"], made.Claims["exp"], made.Claims["jti"] = issued.Unix(), issued.Add(time.Minute).Unix(), rand.Text()
	assertion, err := key.Sign(made.Header, made.Claims)
	if err != nil {
		return err
	}
	attempt.Form.Set("client_assertion", assertion)
	return nil
}

// probeDPoP finds out whether the server binds tokens to a key. If no method works, it
// finds out whether that is what the server wants.
func (e *examination) probeDPoP(ctx context.Context) {
	m := cmp.Or(e.method, e.unbound)
	if m == nil {
		return
	}
	if e.metadata != nil && len(e.metadata.DPoPSigningAlgValuesSupported) == 0 {
		e.say(note, "dpop", "not tried: the metadata lists no algorithm for it")
		return
	}
	if e.isExhausted() {
		return
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return
	}
	_, err = e.request(ctx, m, key)
	w, _ := e.route(m)
	var unbound *clientcredentials.ResponseError
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		e.say(good, "dpop", "the server can bind tokens to a key (RFC 9449): see Config.DPoP")
	case errors.Is(err, jws.ErrNotListed):
		e.say(note, "dpop", "not tried: %s", e.diagnose(w, err))
	case errors.As(err, &unbound):
		e.say(note, "dpop", "the server doesn't bind tokens to a key")
	default:
		e.say(note, "dpop", "the server doesn't accept a DPoP proof: %s", e.diagnose(w, err).said)
	}
	if e.method == nil {
		e.explainBinding(err == nil)
	}
}

// explainBinding says what the tokens must be bound to, after no method worked, but
// perhaps one with a DPoP proof.
func (e *examination) explainBinding(provenWorks bool) {
	d := e.verdict()
	switch {
	case provenWorks:
		d.topic, d.change = aboutDPoP, "give -dpop-key-file: with a DPoP proof by a new key, the server issued a token"
	case d.topic == aboutBinding:
		d.topic, d.change = aboutCertificate, e.situation(e.plain).advise(aboutCertificate)
	default:
		return
	}
	d.subject = subjects[d.topic]
	e.reasons = append(e.reasons, d)
}

// reportToken describes the token.
func (e *examination) reportToken() {
	token := e.token
	if token == nil {
		return
	}
	life := time.Duration(token.ExpiresIn) * time.Second
	switch {
	case token.ExpiresIn == 0:
		e.say(warn, "token", "the server doesn't say when it expires (RFC 6749, Section 5.1, recommends expires_in): a client uses it until an API refuses it")
	case life < shortLife:
		e.say(warn, "token", "it lives for only %s, which causes many token requests; let tokens live for some minutes", period(life))
	default:
		e.say(good, "token", "it lives for %s", period(life))
	}
	if token.TokenType == "" {
		e.say(warn, "token", "it has no token_type, which RFC 6749, Section 5.1, requires; it is treated as Bearer")
	}
	parsed := parseToken(token.AccessToken)
	format := map[string]string{"jwt": "a JWT", "jwe": "an encrypted JWT", "opaque": "opaque"}[parsed.Format]
	if parsed.Format == "jwt" {
		w, _ := e.route(e.method)
		said := w.printable(token) // Masked before it is cut, which could leave a part of a secret.
		format += "; audience " + clipped(said(list(texts(parsed.Claims["aud"]), "none"))) + "; binding: " + clipped(said(parsed.binding()))
	}
	e.say(good, "token", "type %s, %s", token.Type(), format)
	e.reportScope(strings.Fields(grantedScope(token, e.settings.Requested())), strings.Fields(e.settings.Requested()))
}

// reportScope compares the scopes that were granted with those that were requested.
func (e *examination) reportScope(granted, requested []string) {
	lacking, more := without(requested, granted), without(granted, requested)
	switch {
	case len(lacking) > 0:
		e.say(warn, "scope", "requested but not granted: %s; check which scopes the client is allowed to request", clippedList(lacking, ""))
	case len(more) > 0:
		e.say(note, "scope", "granted but not requested: %s", clippedList(more, ""))
	default:
		e.say(good, "scope", "granted as requested: %s", clippedList(granted, "none"))
	}
}

// clippedList is list with an end for lists that are long.
func clippedList(texts []string, none string) string { return clipped(list(texts, none)) }

func clipped(whole string) string {
	if part := redact.Clip(whole, maxListed); part != whole {
		return part + " and more"
	}
	return whole
}

// without returns the elements of all that aren't in some.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// reportTimes reports how far the clocks are apart, and how fast the server answers.
func (e *examination) reportTimes() {
	exchanges := e.plain.sent()
	if e.certified != nil {
		exchanges = append(exchanges, e.certified.sent()...)
	}
	switch skew, known := clockSkew(exchanges); {
	case !known:
	case max(skew, -skew) <= closeClocks:
		e.say(good, "clock", "the server's clock agrees with the clock of this machine")
	default:
		e.say(warn, "clock", "the server's clock is %s: it may refuse assertions and DPoP proofs; correct the clock that is wrong", describeSkew(skew))
	}
	latencies := make(map[bool][]time.Duration) // on connections that were reused, or not
	for _, x := range exchanges {
		if x.status != 0 && x.method == http.MethodPost {
			latencies[x.reused] = append(latencies[x.reused], x.answered.Sub(x.sent))
		}
	}
	all, connections := latencies[true], "open connections"
	if len(all) == 0 {
		all, connections = latencies[false], "new connections"
	}
	if len(all) > 0 {
		slices.Sort(all)
		e.say(good, "latency", "%v, the median of token requests on %s: %d", all[len(all)/2].Round(100*time.Microsecond), connections, len(all))
	}
}

// describeSkew says by how much the server's clock differs.
func describeSkew(skew time.Duration) string {
	direction := "behind"
	if skew > 0 {
		direction = "ahead of"
	}
	return fmt.Sprintf("%s %s the clock of this machine", period(skew), direction)
}

// clockSkew returns by how much the server's clock is ahead, from the last Date field,
// RFC 9110, Section 6.6.1. A Date is in whole seconds, and is written at any time
// between request and answer: a difference that this explains isn't reported.
func clockSkew(exchanges []exchange) (skew time.Duration, known bool) {
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
