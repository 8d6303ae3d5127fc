// Package otelclientcredentials makes OpenTelemetry metrics and spans of what package
// clientcredentials does.
//
//	observer, err := otelclientcredentials.NewObserver(
//		otelclientcredentials.WithAttributes(attribute.String("clientcredentials.name", "billing")),
//	)
//	if err != nil {
//		return err
//	}
//	conf.Observer = observer
//
// That is all, unless the remaining life of the token is of interest: see
// [RegisterSource]. Without options it uses the global MeterProvider and
// TracerProvider, also when they are set later.
//
// # Metrics
//
// Each instrument with its kind and unit, what it measures, and the attributes that a
// measurement may have beside those of [WithAttributes]:
//
//	clientcredentials.origin.refusals            counter, {request}
//	    API requests that left the token's origins, and didn't get it.
//	clientcredentials.store.lease.wait.duration  histogram, s
//	    How long token requests waited for that of another replica.
//	clientcredentials.store.operation.duration   histogram, s
//	    How long calls of the store of shared tokens took.
//	    - clientcredentials.store.operation
//	    - clientcredentials.store.outcome
//	    - error.type
//	clientcredentials.token.cooldown.duration    histogram, s
//	    For how long no token is requested after a failure.
//	clientcredentials.token.gets                 counter, {get}
//	    How often callers asked for a token.
//	    - clientcredentials.token.source
//	    - clientcredentials.token.state
//	    - error.type
//	clientcredentials.token.invalidations        counter, {token}
//	    Tokens that were dropped before they expired.
//	    - clientcredentials.token.invalidation.reason
//	clientcredentials.token.remaining            gauge, s
//	    How long the current token remains valid.
//	clientcredentials.token.request.duration     histogram, s
//	    How long token requests took, with retries.
//	    - clientcredentials.token.source
//	    - error.type
//	clientcredentials.token.requests             counter, {request}
//	    Token requests that were started.
//	    - clientcredentials.token.request.background
//	clientcredentials.token.retries              counter, {attempt}
//	    Attempts at a token that failed and were followed by another.
//	    - error.type
//	clientcredentials.token.wait.duration        histogram, s
//	    How long callers waited for a token that wasn't at hand.
//	    - clientcredentials.token.source
//	    - error.type
//
// What to watch:
//
//   - clientcredentials.token.gets, one for each request of a Client or Transport: the
//     share without error.type is that of the callers who got a token. Many with the
//     state stale, for minutes, tell of an outage before it hurts anybody: tokens are
//     due, and there are no new ones.
//   - clientcredentials.token.request.duration by error.type: why. An invalid_client
//     needs somebody to look after the secret, and a timeout doesn't.
//   - clientcredentials.token.invalidations with the reason rejected: an API refuses
//     tokens that should be good.
//   - clientcredentials.store.operation.duration with error.type: replicas request their
//     own tokens meanwhile.
//
// Config.Token, which always requests a new token, is no part of a Source: of it there
// are retries only. That credentials travel in cleartext is for logs: see
// clientcredentials.SlogObserver, and JoinObservers.
//
// What a token request does on the wire, attempt by attempt, is for the instrumentation
// of HTTP to tell: wrap the transport of Config.HTTPClient with otelhttp.NewTransport.
// It isn't an *http.Transport then, and has to do by itself what package
// clientcredentials does with one: get rid of dead connections (set SendPingTimeout of
// http.Transport.HTTP2), and present the client's certificate, if there is one.
//
// # Attributes
//
// No attribute has a token, a secret, a scope, an address or words of a server in it.
// This is all that there is:
//
//	clientcredentials.store.operation            abort, acquire, invalidate, publish, renew
//	clientcredentials.store.outcome              cooling, hit, lead, lease_lost, wait
//	clientcredentials.token.invalidation.reason  certificate_replaced, rejected, revoked
//	clientcredentials.token.request.background   false, true
//	clientcredentials.token.source               memory, server, store
//	clientcredentials.token.state                fresh, stale
//	error.type                                   see below
//
// A caller who doesn't wait for a fresh token gets it from memory. With Config.Store, a
// token request may end with the token of another replica, from the store. A store's
// outcome is what acquiring has found out, or that another replica has taken over the
// lease (lease_lost), which is no failure.
//
// # Errors
//
// The attribute error.type stands where something has failed. Its values are:
//
//   - the error code in the answer, if it is one of those of the RFCs that may come of
//     token requests: access_denied, invalid_authorization_details, invalid_client,
//     invalid_dpop_proof, invalid_grant, invalid_request, invalid_scope, invalid_target,
//     server_error, temporarily_unavailable, unauthorized_client,
//     unsupported_grant_type, use_dpop_nonce.
//   - else the status of the answer, if HTTP knows it: 302, 404, 503.
//   - invalid_response: an answer of success without a token that can be used.
//   - timeout: of an attempt, of all of them, of the caller, or of the store.
//   - canceled: the caller's context, or that which the Source was made with.
//   - dns: the name of the server wasn't found.
//   - tls: the handshake failed; a certificate, mostly.
//   - connection: refused, reset or lost, or what came wasn't HTTP.
//   - _OTHER: anything else, such as a key file that is missing.
//
// # Spans
//
// There is a span "request token", of kind internal, for each token request of a Source:
// from when a token is due until there is a new one or no more attempts are made. It is
// the parent of the spans that otelhttp makes in the transport of Config.HTTPClient, one
// for each attempt, and of those of an instrumented store. As callers share a token request, and mostly don't wait for it, it
// belongs to none of theirs: its parent is the span in the context that the Source was
// made with, mostly none. A failed one has the status Error, error.type, and
// http.response.status_code if there was an answer.
package otelclientcredentials
