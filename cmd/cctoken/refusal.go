package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// A topic is what a failed request is about. Later topics say more about what the user
// can change. So the failure with the highest topic is the most telling one.
type topic int

const (
	aboutNothing     topic = iota // nothing was sent, or the answer doesn't say
	aboutServer                   // a fault of the server, or its overload
	aboutRequest                  // the form of the request
	aboutMethod                   // a method that the client isn't registered for
	aboutCredentials              // an answer that says nothing but that they are wrong
	aboutFault                    // the examination ended early: no answer, or one that isn't to be trusted
	aboutEndpoint                 // no token endpoint at this address
	aboutClient                   // a client that is unknown or disabled
	aboutKey                      // the key of an assertion
	aboutKeyID
	aboutAlgorithm
	aboutAssertion // the audience of an assertion
	aboutLife      // credentials that have expired
	aboutClock
	aboutBinding // tokens must be bound, and the answer doesn't say to what
	aboutCertificate
	aboutDPoP
	aboutTenant     // which of the server's customers the client belongs to
	aboutPermission // what the client is allowed to do
	aboutGrant
	aboutAudience // for which API the token is
	aboutScope
)

// subjects are the topics in the report.
var subjects = [...]string{
	aboutNothing:     "request",
	aboutServer:      "server",
	aboutRequest:     "request",
	aboutMethod:      "method",
	aboutCredentials: "credentials",
	aboutFault:       "server",
	aboutEndpoint:    "endpoint",
	aboutClient:      "client",
	aboutKey:         "key",
	aboutKeyID:       "key id",
	aboutAlgorithm:   "algorithm",
	aboutAssertion:   "audience",
	aboutLife:        "credentials",
	aboutClock:       "clock",
	aboutBinding:     "binding",
	aboutCertificate: "certificate",
	aboutDPoP:        "dpop",
	aboutTenant:      "tenant",
	aboutPermission:  "permission",
	aboutGrant:       "grant",
	aboutAudience:    "audience",
	aboutScope:       "scope",
}

// A situation is what is known about a token request that failed.
type situation struct {
	*settings
	server
	sent []exchange // by the wire that carried the request, which is the last
}

// A diagnosis says why a request brought no token.
type diagnosis struct {
	topic   topic
	subject string // the first word in the report
	status  int    // the exit status
	said    string // what happened
	change  string // the one thing to change; empty: said contains it
	settled bool   // another method wouldn't help: the server knows the client, and refuses what it requests
}

func (d diagnosis) String() string {
	if d.change == "" {
		return d.said
	}
	return d.said + "; " + d.change
}

// failure returns d as an error.
func (d diagnosis) failure() error { return &failure{d.status, errors.New(d.String())} }

// mostTelling returns the first of the diagnoses with the highest topic. There must be one.
func mostTelling(diagnoses []diagnosis) diagnosis {
	return slices.MaxFunc(diagnoses, func(a, b diagnosis) int { return cmp.Compare(a.topic, b.topic) })
}

// diagnose says why the request ended with err, and what to change.
func (s *situation) diagnose(err error) diagnosis {
	d := diagnosis{topic: aboutFault, subject: subjects[aboutFault], status: statusOf(err)}
	refused, ok := refusalOf(err)
	if !ok {
		d.said, d.change = explain(err)
		return d
	}
	d.said = "the server " + refused.String()
	d.topic = s.topicOf(refused)
	isClear := tokenresponse.TopicOfCode(refused.code) != tokenresponse.TopicNone
	d.settled = isClear || d.topic >= aboutBinding && refused.code != "invalid_client" && refused.status != http.StatusUnauthorized
	about := d.topic
	if about == aboutCredentials {
		about = s.suspect() // It ranks no higher than what the server said.
	}
	if about == aboutEndpoint {
		d.status = statusUnusable
	}
	d.subject, d.change = subjects[about], s.advise(about)
	if refused.hint != "" && slices.Contains([]topic{aboutRequest, aboutCredentials, aboutEndpoint, aboutClient}, d.topic) {
		d.change = strings.NewReplacer("ClientID", "-client-id", "ClientSecret", s.secretName(), "TokenURL", "-token-url").Replace(refused.hint)
	}
	return d
}

// A refusal is an answer in which the server says why there is no token.
type refusal struct {
	status    int
	code      string // RFC 6749, Section 5.2; empty: there is none
	said      string // its words
	described bool   // they are its error_description
	hint      string // what the library finds odd in the settings; empty: nothing
}

// refusalOf returns the refusal that err stands for, if it is one.
func refusalOf(err error) (*refusal, bool) {
	var (
		standard *oauth2.RetrieveError
		answer   *clientcredentials.ResponseError
		own      *tokenresponse.RefusalError
	)
	switch {
	case errors.As(err, &standard) && !isRedirect(standard.Response.StatusCode):
		_, hint, _ := strings.Cut(err.Error(), strings.TrimPrefix(standard.Error(), "oauth2: ")+"\n")
		return &refusal{standard.Response.StatusCode, standard.ErrorCode, tokenresponse.Explanation(standard), standard.ErrorDescription != "", hint}, true
	case errors.As(err, &answer) && errors.As(err, &own) && own.Explains():
		return &refusal{status: answer.StatusCode, said: own.Said}, true
	}
	return nil, false
}

// String says how the server refused.
func (r *refusal) String() string {
	text := fmt.Sprintf("refused with %s (status %d)", r.code, r.status)
	if r.code == "" {
		text = fmt.Sprintf("answered %d without an OAuth error", r.status)
	}
	switch {
	case r.described:
		text += fmt.Sprintf(", saying %q", r.said)
	case r.said != "":
		text += ": " + r.said
	}
	return text
}

// isTemporary reports whether the server may accept the same request later.
func (r *refusal) isTemporary() bool { return tokenresponse.IsTemporary(r.status, r.code) }

// topicOf returns what a refusal is about.
func (s *situation) topicOf(r *refusal) topic {
	if about := tokenresponse.TopicOfCode(r.code); about != tokenresponse.TopicNone {
		return topics[about]
	}
	about := s.specify(tokenresponse.TopicOfWords(r.said, s.ClientID), r.said)
	switch {
	case s.Form.Has("grant_type") && (r.code == "invalid_grant" || r.code == "invalid_request" && about == aboutNothing):
		return aboutGrant // It may need other parameters.
	case r.code == "invalid_grant" && about != aboutDPoP && about != aboutCertificate:
		return aboutBinding // There is no grant that could be invalid.
	case isMissing(r.status) && !isAboutClient(r.code):
		return aboutEndpoint
	case r.isTemporary():
		return aboutServer
	case about != aboutNothing:
		return about
	case r.code == "unauthorized_client" && r.status != http.StatusUnauthorized: // With 401, it stands for a wrong secret.
		return aboutGrant
	case isAboutClient(r.code), r.code == "access_denied", r.status == http.StatusUnauthorized, r.status == http.StatusForbidden:
		return aboutCredentials
	}
	return aboutRequest
}

// topics are the topics of refusals.
var topics = [...]topic{
	tokenresponse.TopicNone:        aboutNothing,
	tokenresponse.TopicMethod:      aboutMethod,
	tokenresponse.TopicCredentials: aboutCredentials,
	tokenresponse.TopicClient:      aboutClient,
	tokenresponse.TopicKey:         aboutKey,
	tokenresponse.TopicKeyID:       aboutKeyID,
	tokenresponse.TopicAlgorithm:   aboutAlgorithm,
	tokenresponse.TopicLife:        aboutLife,
	tokenresponse.TopicClock:       aboutClock,
	tokenresponse.TopicCertificate: aboutCertificate,
	tokenresponse.TopicDPoP:        aboutDPoP,
	tokenresponse.TopicTenant:      aboutTenant,
	tokenresponse.TopicPermission:  aboutPermission,
	tokenresponse.TopicGrant:       aboutGrant,
	tokenresponse.TopicAudience:    aboutAudience,
	tokenresponse.TopicScope:       aboutScope,
}

// specify returns what the server's words are about, which depends on the credentials that
// were sent.
func (s *situation) specify(words tokenresponse.Topic, said string) topic {
	about, asserts := topics[words], s.last().assertion != nil
	switch {
	case about == aboutAudience && asserts && !s.Form.Has("audience") && !s.Form.Has("resource"):
		return aboutAssertion
	case about == aboutLife && asserts && s.AssertionFile == "" && !strings.Contains(ascii.Lower(said), "secret"):
		return aboutClock // Each assertion is a new one.
	case about == aboutCertificate && asserts:
		return aboutKey // It is the certificate of the key.
	case (about == aboutKeyID || about == aboutAlgorithm || about == aboutKey) && !asserts:
		return aboutCredentials
	}
	return about
}

// isAboutClient reports whether the code, RFC 6749, Section 5.2, says that the request came
// to a token endpoint, and that it didn't like the client.
func isAboutClient(code string) bool {
	return code == "invalid_client" || code == "unauthorized_client"
}

// isMissing reports whether the status says that there is no token endpoint.
func isMissing(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed
}

// last returns the exchange that failed.
func (s *situation) last() exchange {
	if len(s.sent) == 0 {
		return exchange{}
	}
	return s.sent[len(s.sent)-1]
}

// suspect returns the most probable reason why the server didn't accept the credentials,
// if it didn't say.
func (s *situation) suspect() topic {
	last := s.last()
	switch {
	case s.listsNone:
		return aboutMethod
	case last.presents:
		return aboutCertificate
	case last.assertion == nil:
		return aboutCredentials
	}
	var (
		audience          = texts(last.assertion.Claims["aud"])
		expiry, hasExpiry = moment(last.assertion.Claims["exp"])
		algorithm         = last.assertion.algorithm()
		hasKeyID          = last.assertion.Header["kid"] != nil || last.assertion.Header["x5t#S256"] != nil
		listed, _         = s.listedAlgorithms()
		isHMAC            = strings.HasPrefix(algorithm, "HS")
	)
	switch {
	case s.AssertionFile != "" && hasExpiry && expiry.Before(last.sent):
		return aboutLife
	case s.isClockWrong():
		return aboutClock
	case isUnlisted(last.assertion, listed):
		return aboutAlgorithm
	case !slices.Contains(audience, s.endpoint) && (s.Issuer == "" || !slices.Contains(audience, s.Issuer)):
		return aboutAssertion
	case isHMAC && s.Algorithm == "":
		return aboutCredentials
	case !isHMAC && !hasKeyID:
		return aboutKeyID
	case s.Algorithm != "", strings.HasPrefix(algorithm, "RS"): // A key of another kind has one algorithm.
		return aboutAlgorithm
	}
	return aboutKey
}

// isClockWrong reports whether the clocks differ so much that servers refuse what the client
// signs: an assertion from the future at once, and another one when its minute is over.
func (s *situation) isClockWrong() bool {
	skew, known := clockSkew(s.sent)
	return known && (skew < -closeClocks || skew > postdated)
}

// listedAlgorithms returns the algorithms that the metadata lists for assertions, and those
// for DPoP proofs. They are empty if they aren't known.
func (s *situation) listedAlgorithms() (assertions, proofs []string) {
	if s.metadata == nil {
		return nil, nil
	}
	return s.metadata.TokenEndpointAuthSigningAlgValuesSupported, s.metadata.DPoPSigningAlgValuesSupported
}

// isUnlisted reports whether there is a list of algorithms without that of t.
func isUnlisted(t *token, listed []string) bool {
	return t != nil && len(listed) > 0 && !slices.Contains(listed, t.algorithm())
}

// advise returns the one thing to change.
func (s *situation) advise(about topic) string {
	last := s.last()
	switch about {
	case aboutScope:
		if s.Requested() == "" {
			return "give -scopes: the server may not have any by default"
		}
		if s.metadata != nil && len(s.metadata.ScopesSupported) > 0 {
			if unlisted := without(strings.Fields(s.Requested()), s.metadata.ScopesSupported); len(unlisted) > 0 {
				return "change -scopes: the metadata doesn't list " + clippedList(unlisted, "")
			}
		}
		return "change -scopes, or have the server's operator allow the client what it requests"
	case aboutAudience:
		if s.Form.Has("audience") || s.Form.Has("resource") {
			return "change audience or resource in -params to what the server calls the API, or have its operator allow it to the client"
		}
		return "name the API that the token is for, as in -params audience=https://api.example.com; some servers call it resource"
	case aboutGrant:
		if s.Form.Has("grant_type") {
			return "change grant_type in -params, or have the server's operator allow it to the client"
		}
		return "have the server's operator allow the client the client_credentials grant"
	case aboutPermission:
		return "have the server's operator allow the client what it requests"
	case aboutTenant:
		return "change the tenant in -token-url or -issuer: the server doesn't know it, or not as the client's"
	case aboutBinding, aboutDPoP, aboutCertificate:
		return s.adviseBinding(about)
	case aboutAssertion, aboutAlgorithm, aboutKeyID, aboutKey:
		return s.adviseAssertion(about)
	case aboutClock:
		change := "correct the clock: of this machine, or of the server"
		if skew, known := clockSkew(s.sent); known && skew != 0 {
			change += "; the server's is " + describeSkew(skew)
		}
		return change
	case aboutLife:
		if last.assertion != nil && s.AssertionFile != "" {
			return "put a new assertion into -assertion-file: it has expired"
		}
		return "set " + s.secretName() + " to a new secret: this one has expired"
	case aboutClient:
		return "check -client-id, and that the client is enabled at the server"
	case aboutEndpoint:
		if s.metadata != nil && s.metadata.TokenEndpoint != "" && s.metadata.TokenEndpoint != s.endpoint {
			return "change -token-url to the token endpoint in the metadata: " + redact.AddressText(s.metadata.TokenEndpoint)
		}
		return "change -token-url: it isn't the address of a token endpoint"
	case aboutMethod:
		switch {
		case s.listsNone && s.AuthMethod != "":
			return "change -auth-method to one that the metadata lists: " + s.listedMethods()
		case s.listsNone:
			return "give the credentials for a method that the metadata lists: " + s.listedMethods()
		}
		return "change -auth-method to the one that the client is registered for"
	case aboutRequest:
		return "check -params and -scopes: the server misses something, or doesn't understand it"
	case aboutNothing, aboutServer, aboutFault:
		if last.status == http.StatusTooManyRequests {
			return "wait before you try again: the server asks for it"
		}
		return "try again later"
	case aboutCredentials:
	}
	return "check -client-id and " + s.secretName() + ", and the authentication method that the client is registered for"
}

// adviseBinding is advise for what tokens are bound to.
func (s *situation) adviseBinding(about topic) string {
	_, listed := s.listedAlgorithms()
	if about == aboutBinding {
		certificates := s.metadata != nil && s.metadata.TLSClientCertificateBoundAccessTokens
		switch proofs := len(listed) > 0 && s.DPoP == nil; {
		case proofs && !certificates:
			about = aboutDPoP
		case certificates && !proofs:
			about = aboutCertificate
		}
	}
	switch last := s.last(); {
	case about == aboutBinding:
		return "give -dpop-key-file or -cert-file: the server seems to bind the client's tokens"
	case about == aboutDPoP && s.DPoP == nil:
		return "give -dpop-key-file: the server binds the client's tokens to a key (RFC 9449)"
	case about == aboutDPoP && s.isClockWrong():
		return s.advise(aboutClock)
	case about == aboutDPoP && isUnlisted(last.proof, listed):
		return "change -dpop-key-file to a key for one of the algorithms that the metadata lists: " + clippedList(listed, "")
	case about == aboutDPoP:
		return "change -dpop-key-file: the client may be registered for another key or another kind of key"
	case s.CertFile == "":
		return "give -cert-file and -key-file: the server seems to bind the client's tokens to a certificate (RFC 8705)"
	case !last.presents:
		return "have the client registered for tls_client_auth: with other methods, the certificate isn't presented"
	case !last.asked:
		return "change -token-url: at this address the server doesn't ask for a certificate; the metadata may have another one in mtls_endpoint_aliases"
	}
	return "change -cert-file to the certificate that the client is registered with"
}

// adviseAssertion is advise for the assertion that the client has sent.
func (s *situation) adviseAssertion(about topic) string {
	assertion := s.last().assertion
	audience := clippedList(texts(assertion.Claims["aud"]), "missing")
	listed, _ := s.listedAlgorithms()
	switch {
	case about == aboutAssertion && s.AssertionFile != "":
		return "have the assertion in -assertion-file made for this server: its aud is " + audience
	case about == aboutAssertion:
		return "change -assertion-audience, or give -issuer: the server may not accept the aud of the assertion, " + audience
	case about == aboutAlgorithm && isUnlisted(assertion, listed):
		return "change -algorithm to one that the metadata lists: " + clippedList(listed, "")
	case about == aboutAlgorithm:
		return "change -algorithm: the client may be registered for another one than " + assertion.algorithm() + ", or for another key"
	case about == aboutKeyID && assertion.Header["kid"] == nil:
		return "give -key-id: the assertion has no kid, by which servers find the client's public key"
	case about == aboutKeyID:
		return "change -key-id to the kid of the public key that the client is registered with, or have this key registered with this kid"
	}
	return "have the public key of the assertion registered for the client, with the same kid; or change -key-file"
}

// secretName returns where the secret comes from.
func (s *settings) secretName() string {
	switch {
	case s.SecretFile != "":
		return "-secret-file"
	case s.Secret != "":
		return "CLIENT_SECRET"
	}
	return "the credentials"
}
