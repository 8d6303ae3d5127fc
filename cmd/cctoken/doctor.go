package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// doctor is cctoken doctor.
//
// It limits what it does to a server. It announces all requests before it sends the
// first, and sends no others. It sends one at a time, and repeats none. It stops when
// the server is overloaded or has refused the client too often.
func doctor(ctx context.Context, c *call) error {
	dry := c.flags.Bool("n", false, "")
	var timeout time.Duration
	c.addDuration(&timeout, "timeout", time.Minute)
	var maxRefusals int
	c.addInt(&maxRefusals, "max-refusals", 3, 1, 10)
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	ctx, cancel, err := within(ctx, timeout)
	if err != nil {
		return err
	}
	defer cancel()
	e := &examination{
		settings:       s,
		out:            c.out,
		maxRefusals:    maxRefusals,
		attemptTimeout: attemptTimeout(timeout / 2),
		server:         server{endpoint: s.TokenURL},
		finding:        finding{worked: make(map[string]*method)},
	}
	steps, err := e.plan(ctx)
	if err != nil {
		return err
	}
	announce(c.out, steps)
	if *dry {
		return nil
	}
	return e.run(ctx, steps)
}

// A step is one part of the examination.
type step struct {
	title    string // what it sends, for the announcement
	requests int    // the most that it sends
	run      func(ctx context.Context)
}

// count returns how many requests the steps send at most.
func count(steps []step) (requests int) {
	for _, st := range steps {
		requests += st.requests
	}
	return requests
}

func announce(out io.Writer, steps []step) {
	fmt.Fprintf(out, "At most %d requests, one after the other:\n", count(steps))
	for i, st := range steps {
		fmt.Fprintf(out, "%3d. %s\n", i+1, redact.Neutralise(fmt.Sprintf("%s (%d)", st.title, st.requests)))
	}
}

// An examination finds out how the client gets a token from the server.
type examination struct {
	settings       *settings
	out            *output
	maxRefusals    int
	attemptTimeout time.Duration

	methods   []*method // that there are credentials for
	plain     *wire
	certified *wire // presents the client's certificate; nil: there is none

	certificate *x509.Certificate // the client's; nil: there is none

	server
	finding
	progress
}

// A server is what is known of the authorization server.
type server struct {
	metadata  *clientcredentials.ServerMetadata // nil: unknown
	listsNone bool                              // its metadata lists methods, but none that there are credentials for
	endpoint  string                            // the token endpoint; empty: unknown
	decoding  decoding
}

// isListed reports whether the metadata lists m.
func (s *server) isListed(m *method) bool {
	return s.metadata != nil && slices.Contains(s.metadata.TokenEndpointAuthMethodsSupported, m.Registered())
}

// listsNoneOf reports whether the metadata lists methods, but none of these.
func (s *server) listsNoneOf(methods ...*method) bool {
	return s.metadata != nil && len(s.metadata.TokenEndpointAuthMethodsSupported) > 0 && !slices.ContainsFunc(methods, s.isListed)
}

// listedMethods returns the methods in the metadata.
func (s *server) listedMethods() string {
	return clippedList(s.metadata.TokenEndpointAuthMethodsSupported, "not listed, so client_secret_basic")
}

// A finding is what worked.
type finding struct {
	method *method            // the first that worked; nil: none
	token  *oauth2.Token      // from method
	worked map[string]*method // all that worked, by name
}

// A progress says how far the examination is, and whether it goes on.
type progress struct {
	refusals int
	stopped  bool
	settled  bool        // no other method would help
	unbound  *method     // that was refused, maybe because the tokens must be bound; nil: none
	reasons  []diagnosis // for each refusal
	problems []diagnosis // that must be fixed even if there is a token
}

// A decoding says whether the server decodes Basic credentials.
type decoding int

const (
	decodingUnknown decoding = iota
	decodesForm              // as RFC 6749, Section 2.3.1, requires
	decodesNothing
)

// A level is the first word of a line in the report.
type level string

const (
	good level = "ok"
	note level = "note"
	warn level = "warn"
	bad  level = "fail"
)

// say adds a line to the report.
func (e *examination) say(l level, subject, format string, args ...any) {
	fmt.Fprintf(e.out, "%-5s %-19s %s\n", l, subject, redact.OneLine(fmt.Sprintf(format, args...)))
}

// fail records a problem that must be fixed. It is reported at the end.
func (e *examination) fail(topic topic, subject, said, change string) {
	e.problems = append(e.problems, diagnosis{topic: topic, subject: subject, status: statusUnusable, said: said, change: change})
}

// failFor records err as a problem that must be fixed.
func (e *examination) failFor(subject string, w *wire, err error) {
	d := e.diagnose(w, err)
	d.topic, d.subject = max(d.topic, aboutFault), subject
	e.problems = append(e.problems, d)
}

// diagnose says why the last request of w ended with err, and what to change.
func (e *examination) diagnose(w *wire, err error) diagnosis { return e.situation(w).diagnose(err) }

// situation returns what is known about the last request of w.
func (e *examination) situation(w *wire) *situation {
	return &situation{settings: e.settings, server: e.server, sent: w.sent()}
}

// stop ends the examination, because the remaining steps would do harm or show nothing.
func (e *examination) stop(format string, args ...any) {
	e.stopped = true
	e.say(note, "stop", format, args...)
}

// plan returns the steps for the settings, and makes the wires for them.
func (e *examination) plan(ctx context.Context) ([]step, error) {
	methods, err := e.candidates(ctx)
	if err != nil {
		return nil, err
	}
	e.methods = methods
	s := e.settings
	var steps []step
	if s.Issuer != "" {
		steps = append(steps, step{"GET the metadata of " + s.Issuer + ", from one location after the other until it is found", maxLocations, e.discover})
	}
	target := cmp.Or(redact.AddressText(e.endpoint), "the token endpoint in the metadata")
	steps = append(steps, step{"POST to " + target + " without credentials: is it there, does it redirect, what about its TLS and clock", 1, e.reach})
	each := 1
	if s.DPoP != nil {
		each = 2 // One more with a nonce.
	}
	for _, m := range methods {
		title := "POST a token request with " + m.Name
		requests := each
		if e.variesAudience(m) {
			title += ", for the issuer and then for the token URL"
			requests *= 2
		}
		if s.Issuer != "" && m.Name != secretBasicRaw {
			title += ", if the metadata lists it, or none of these"
		}
		steps = append(steps, step{title, requests, func(ctx context.Context) { e.try(ctx, m) }})
	}
	if s.wantsBasic() && isPlain(s.ClientID+s.Secret) {
		steps = append(steps, step{"POST one with a percent-encoded secret, if client_secret_basic works: does the server decode it?", each, e.probeDecoding})
	}
	if s.KeyFile != "" && slices.ContainsFunc(methods, func(m *method) bool { return m.Name == privateKeyJWT }) {
		steps = append(steps, step{"POST one with an assertion from 30 seconds in the future, if private_key_jwt works: does the server tolerate it?", each, e.probeClock})
	}
	if s.DPoP == nil && s.AssertionFile == "" { // A server may accept that assertion only once.
		steps = append(steps, step{"POST one with a DPoP proof by a new key, if a method works, or the server may want a proof: does the server bind tokens?", 2, e.probeDPoP})
	}
	e.plain = newWire(s, nil, count(steps))
	for _, m := range methods {
		if m.Cert != nil {
			e.certified, e.certificate = newWire(s, m.Cert, count(steps)), m.Cert.Leaf
		}
	}
	return steps, nil
}

// candidates returns the methods that there are credentials for, the strongest first,
// or the one method that the settings ask for.
func (e *examination) candidates(ctx context.Context) (methods []*method, err error) {
	s := e.settings
	var names []string
	if s.AuthMethod != "" {
		names = []string{s.AuthMethod}
	} else if names, err = s.possibleMethods(ctx); err != nil {
		return nil, err
	}
	for _, name := range names {
		m, err := s.NewMethod(ctx, name)
		if err != nil {
			return nil, err
		}
		methods = append(methods, m)
	}
	return methods, nil
}

// possibleMethods returns the names of the methods that there are credentials for, the
// strongest first.
func (s *settings) possibleMethods(ctx context.Context) (names []string, err error) {
	if s.CertFile != "" {
		name, err := s.CertificateMethod(ctx)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if s.KeyFile != "" || s.AssertionFile != "" {
		names = append(names, privateKeyJWT)
	}
	if s.Secret == "" {
		return names, nil
	}
	if s.Issuer != "" && len(s.Secret) >= 32 {
		names = append(names, secretJWT) // It is tried only if the metadata lists it.
	}
	names = append(names, secretBasic, secretPost)
	if !isPlain(s.ClientID+s.Secret) && !strings.Contains(s.ClientID, ":") {
		names = append(names, secretBasicRaw) // For a plain secret it is the same as secretBasic.
	}
	return names, nil
}

// wantsBasic reports whether client_secret_basic is one of the candidates.
func (s *settings) wantsBasic() bool {
	return s.Secret != "" && (s.AuthMethod == "" || s.AuthMethod == secretBasic)
}

// variesAudience reports whether m is tried with a second audience. Few clients use
// client_secret_jwt, so it must not use up the refusals that the other methods need.
func (e *examination) variesAudience(m *method) bool {
	s := e.settings
	isSigned := m.Name == privateKeyJWT && s.AssertionFile == "" || m.Name == secretJWT && s.AuthMethod != ""
	return isSigned && s.Issuer != "" && m.Audience == ""
}

// isPlain reports whether form encoding doesn't change text.
func isPlain(text string) bool { return url.QueryEscape(text) == text }

// run runs the steps and writes the report.
func (e *examination) run(ctx context.Context, steps []step) error {
	defer e.plain.close()
	if e.certified != nil {
		defer e.certified.close()
	}
	fmt.Fprintln(e.out)
	e.checkSecret()
	e.checkCertificate()
	for _, st := range steps {
		if e.stopped || e.out.err != nil { // Don't go on if nobody reads the report.
			break
		}
		st.run(ctx)
		if ctx.Err() != nil {
			return e.diagnose(e.plain, &failure{statusTemporary, context.Cause(ctx)}).failure()
		}
	}
	if e.out.err != nil {
		return nil // The caller reports it.
	}
	e.reportToken()
	e.reportTimes()
	return e.conclude()
}

// conclude ends the report: with what must be fixed, and then with the Config, or with why
// there is none.
func (e *examination) conclude() error {
	fails := slices.Clone(e.problems)
	if e.method == nil {
		verdict := e.verdict()
		fails = append(slices.DeleteFunc(fails, func(d diagnosis) bool { return d == verdict }), verdict)
	}
	for _, d := range fails {
		e.say(bad, d.subject, "%s", d)
	}
	if e.method == nil {
		last := fails[len(fails)-1]
		return &failure{last.status, errors.New("no token: " + cmp.Or(last.change, last.said))}
	}
	code, err := e.code()
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "\nThe Config for it:\n\n%s", code)
	if len(fails) > 0 {
		return &failure{fails[len(fails)-1].status, errors.New("there is something to fix: see the lines that begin with fail")}
	}
	return nil
}

// verdict returns why there is no token.
func (e *examination) verdict() diagnosis {
	return mostTelling(slices.Concat(e.problems, e.reasons))
}
