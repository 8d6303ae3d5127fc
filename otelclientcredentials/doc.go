// Package otelclientcredentials reports what package clientcredentials does as
// OpenTelemetry metrics and spans.
//
//	observer, err := otelclientcredentials.NewObserver(
//		otelclientcredentials.WithAttributes(attribute.String("clientcredentials.name", "billing")),
//	)
//	if err != nil {
//		return err
//	}
//	conf.Observer = observer
//
// Most programs need nothing else. [RegisterSource] also measures how long the current token
// remains valid. Without options, the global MeterProvider and TracerProvider are used, even
// if they are set later. They take any exporter, such as OpenTelemetry's exporter for Prometheus.
//
// # What to watch
//
//   - clientcredentials.token.gets counts one for each API request. Without error.type, the
//     request got a token. If many have the state stale, for minutes, the authorization server
//     is probably down: tokens are due, and no new ones come. Callers don't notice yet.
//   - clientcredentials.token.request.duration by error.type says why. For invalid_client,
//     somebody has to look at the secret. A timeout may pass by itself.
//   - clientcredentials.token.invalidations with the reason rejected: an API rejects tokens
//     that should be valid.
//   - clientcredentials.token.remaining, if it stays low while calls are made: the token is about
//     to run out, and isn't replaced. It needs [RegisterSource].
//   - clientcredentials.store.operation.duration with error.type: until the store works again,
//     each replica requests its own tokens.
//
// The file dashboard.json has these and all other metrics as a dashboard for Grafana:
// docs/dashboard.md shows it.
//
// [clientcredentials.Config.Token] isn't part of a Source: only its retries are reported.
// Credentials that travel in plaintext are for logs, not for metrics: see
// [clientcredentials.SlogObserver] and [clientcredentials.JoinObservers].
//
// To see each attempt on the wire, use the instrumentation of HTTP: wrap the transport of
// [clientcredentials.Config.HTTPClient] with otelhttp.NewTransport. The library can't set up
// the transport inside, so do that yourself: set SendPingTimeout of [http.Transport.HTTP2],
// which detects dead connections, and the client's certificate, if there is one.
//
// # Metrics
//
// The table has the kind and unit of each instrument, what it measures, and the attributes
// that a measurement may have in addition to those of [WithAttributes]:
//
//	clientcredentials.origin.refusals            counter, {request}
//	    API requests to origins that the token must not go to.
//	    - clientcredentials.origin.outcome
//	clientcredentials.store.lease.wait.duration  histogram, s
//	    How long token requests waited for another replica to get a token.
//	    - clientcredentials.target
//	clientcredentials.store.operation.duration   histogram, s
//	    How long calls to the store of shared tokens took.
//	    - clientcredentials.store.operation
//	    - clientcredentials.store.outcome
//	    - error.type
//	clientcredentials.token.cooldown.duration    histogram, s
//	    How long no token is requested after a failure.
//	    - clientcredentials.target
//	clientcredentials.token.gets                 counter, {get}
//	    How often callers asked for a token.
//	    - clientcredentials.target
//	    - clientcredentials.token.source
//	    - clientcredentials.token.state
//	    - error.type
//	clientcredentials.token.invalidations        counter, {token}
//	    Tokens that were dropped before they expired.
//	    - clientcredentials.target
//	    - clientcredentials.token.invalidation.reason
//	clientcredentials.token.remaining            gauge, s
//	    How long the current token remains valid.
//	clientcredentials.token.request.duration     histogram, s
//	    How long token requests took, including retries.
//	    - clientcredentials.target
//	    - clientcredentials.token.source
//	    - error.type
//	clientcredentials.token.requests             counter, {request}
//	    Token requests that were started.
//	    - clientcredentials.target
//	    - clientcredentials.token.request.background
//	clientcredentials.token.retries              counter, {attempt}
//	    Failed attempts to get a token that were followed by another attempt.
//	    - error.type
//	clientcredentials.token.wait.duration        histogram, s
//	    How long callers waited for a token.
//	    - clientcredentials.target
//	    - clientcredentials.token.source
//	    - error.type
//
// # Attributes
//
// No attribute contains a token, a secret, a scope, an address or a text from a server.
// These are all values:
//
//	clientcredentials.origin.outcome             request_refused, sent_without_token
//	clientcredentials.store.operation            abort, acquire, invalidate, publish, renew, unseal
//	clientcredentials.store.outcome              cooling, hit, lead, lease_lost, wait
//	clientcredentials.target                     other
//	clientcredentials.token.invalidation.reason  certificate_replaced, rejected, revoked
//	clientcredentials.token.request.background   false, true
//	clientcredentials.token.source               memory, server, store
//	clientcredentials.token.state                fresh, stale
//	error.type                                   see below
//
// What is measured of a [clientcredentials.Target] has clientcredentials.target, and nothing
// else has. Its value is other, unless [WithTargetName] gives the target a name.
//
// The source is memory if the caller didn't have to wait for a new token. It is store if
// another replica has requested the token, and server otherwise. The store.outcome is what
// acquire has answered, or lease_lost: another replica has taken over the lease, which isn't
// a failure.
//
// # Errors
//
// The attribute error.type is present if something failed. Its values are:
//
//   - the error code in the answer, if it is one that the RFCs define for token requests:
//     access_denied, invalid_authorization_details, invalid_client, invalid_dpop_proof,
//     invalid_grant, invalid_request, invalid_scope, invalid_target, server_error,
//     slow_down, temporarily_unavailable, unauthorized_client, unsupported_grant_type,
//     use_dpop_nonce.
//   - otherwise the status of the answer, if HTTP defines it: 302, 404, 503; if not,
//     temporarily_unavailable for those that reverse proxies have for it, such as 520.
//   - invalid_response: the answer had a status of success, but no usable token.
//   - timeout: an attempt, all attempts together, the caller or the store ran out of time.
//   - canceled: the context of the caller or of the Source was canceled.
//   - dns: the name of the server couldn't be resolved.
//   - tls: the handshake failed, mostly because of a certificate.
//   - connection: it was refused, reset or lost, or the answer wasn't HTTP.
//   - _OTHER: anything else, such as a missing key file.
//
// # Spans
//
// Each token request of a [clientcredentials.Source] has a span "request token", of kind
// internal. It lasts until there is a new token or no more attempts are made. It is the
// parent of the spans that otelhttp makes in the transport of
// [clientcredentials.Config.HTTPClient], one for each attempt, and of those of an
// instrumented store.
//
// Callers share a token request, and most don't wait for it. So its parent isn't the span of
// a caller, but the span in the context that the Source was made with, if there is one. If
// the request fails, the span has the status Error, error.type, and
// http.response.status_code if there was an answer.
package otelclientcredentials
