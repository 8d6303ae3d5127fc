package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// doctor is cctoken doctor.
//
// What it does to a server is bounded: it announces each request before it sends the
// first, sends no more than that, one after the other and none twice, and stops when
// the server is overloaded, or has refused the client too often.
func doctor(ctx context.Context, c *call) error {
	dry := c.flags.Bool("n", false, "")
	var timeout time.Duration
	c.addDuration(&timeout, "timeout", time.Minute)
	var patience int
	c.addInt(&patience, "max-refusals", 3, 1, 10)
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	ctx, cancel, err := within(ctx, timeout)
	if err != nil {
		return err
	}
	defer cancel()
	e := &examination{s: s, out: c.out, patience: patience, timeout: attemptTimeout(timeout / 2), endpoint: s.tokenURL, worked: make(map[string]*method)}
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

// A step is a part of the examination.
type step struct {
	title    string // what is sent, for the announcement
	requests int    // how many at most
	run      func(ctx context.Context)
}

func announce(out io.Writer, steps []step) {
	total := 0
	for _, st := range steps {
		total += st.requests
	}
	fmt.Fprintf(out, "At most %d requests, one after the other:\n", total)
	for i, st := range steps {
		fmt.Fprintf(out, "%3d. %s\n", i+1, neutralise(fmt.Sprintf("%s (%d)", st.title, st.requests)))
	}
}

// An examination is what is known of the server and the client so far.
type examination struct {
	s        *settings
	out      *output
	patience int           // how many refusals end it
	timeout  time.Duration // of one attempt

	plain, certified *wire // without and with the client's certificate

	metadata *clientcredentials.ServerMetadata // nil: unknown
	endpoint string                            // the token endpoint; empty: unknown
	refusals int
	stopped  bool
	status   int // of the first thing that failed; 0: nothing did

	method  *method            // the first that worked
	token   *oauth2.Token      // that it got
	worked  map[string]*method // by name
	decodes decoding
}

// A decoding says what the server does to Basic credentials.
type decoding int

const (
	unknownDecoding decoding = iota
	formDecoding             // as RFC 6749, Section 2.3.1, wants it
	noDecoding
)

// A level says how serious a line of the report is.
type level string

const (
	good level = "ok"
	note level = "note"
	warn level = "warn"
	bad  level = "fail"
)

// say adds a line to the report.
func (e *examination) say(l level, subject, format string, args ...any) {
	fmt.Fprintf(e.out, "%-5s %-19s %s\n", l, subject, oneLine(fmt.Sprintf(format, args...)))
}

// fail adds a line about what has to be mended.
func (e *examination) fail(status int, subject, format string, args ...any) {
	e.say(bad, subject, format, args...)
	e.status = cmp.Or(e.status, status)
}

// stop ends the examination: what remains would do harm, or tell nothing.
func (e *examination) stop(format string, args ...any) {
	e.stopped = true
	e.say(note, "stop", format, args...)
}

// plan returns the steps that the settings allow.
func (e *examination) plan(ctx context.Context) ([]step, error) {
	methods, err := e.candidates(ctx)
	if err != nil {
		return nil, err
	}
	var cert *method
	var steps []step
	if e.s.issuer != "" {
		steps = append(steps, step{"GET the metadata of " + e.s.issuer + ", at its locations until one has it", 3, e.discovery})
	}
	target := cmp.Or(printableURL(e.endpoint), "the token endpoint in the metadata")
	steps = append(steps, step{"POST to " + target + " without credentials: is it there, does it redirect, its TLS and clock", 1, e.reach})
	each := 1
	if e.s.dpop != nil {
		each = 2 // One more for a nonce.
	}
	for _, m := range methods {
		if m.cert != nil {
			cert = m
		}
		title := "POST a token request by " + m.name
		requests := each
		if e.variesAudience(m) {
			title += ", for the issuer and then for the token URL"
			requests *= 2
		}
		if e.s.issuer != "" && m.name != secretBasicRaw {
			title += ", if the metadata lists it"
		}
		steps = append(steps, step{title, requests, func(ctx context.Context) { e.try(ctx, m) }})
	}
	if e.s.wantsBasic() && isPlain(e.s.clientID+e.s.secret) {
		steps = append(steps, step{"POST one with a secret that is percent-encoded, if client_secret_basic works: does the server decode it?", each, e.formDecoding})
	}
	if e.s.keyFile != "" && slices.ContainsFunc(methods, func(m *method) bool { return m.name == privateKeyJWT }) {
		steps = append(steps, step{"POST one with an assertion from 30 seconds ahead, if private_key_jwt works: what clock does the server tolerate?", each, e.postdate})
	}
	if e.s.dpop == nil && e.s.assertionFile == "" { // A server may take that but once.
		steps = append(steps, step{"POST one with a DPoP proof of a throw-away key, if something works: does the server bind tokens?", 2, e.dpop})
	}
	total := 0
	for _, st := range steps {
		total += st.requests
	}
	e.plain = newWire(e.s, nil, total)
	if cert != nil {
		e.certified = newWire(e.s, cert.cert, total)
	}
	return steps, nil
}

// candidates returns the methods that there are credentials for, the strongest first,
// or the one that is asked for.
func (e *examination) candidates(ctx context.Context) ([]*method, error) {
	s := e.s
	var names []string
	switch {
	case s.authMethod != "":
		names = []string{s.authMethod}
	default:
		if s.certFile != "" {
			name, err := s.certificateMethod(ctx)
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		}
		if s.keyFile != "" || s.assertionFile != "" {
			names = append(names, privateKeyJWT)
		}
		if s.secret != "" {
			if s.issuer != "" && len(s.secret) >= 32 {
				names = append(names, secretJWT) // Only if the metadata lists it.
			}
			names = append(names, secretBasic)
			if !isPlain(s.clientID+s.secret) && !strings.Contains(s.clientID, ":") {
				names = append(names, secretBasicRaw) // Else it is the same.
			}
			names = append(names, secretPost)
		}
	}
	var methods []*method
	for _, name := range names {
		m, err := s.newMethod(ctx, name)
		if err != nil {
			return nil, err
		}
		methods = append(methods, m)
	}
	return methods, nil
}

// wantsBasic reports whether client_secret_basic is to be tried.
func (s *settings) wantsBasic() bool {
	return s.secret != "" && (s.authMethod == "" || s.authMethod == secretBasic)
}

// variesAudience reports whether m is tried with a second audience.
func (e *examination) variesAudience(m *method) bool {
	return e.s.issuer != "" && m.audience == "" && (m.name == privateKeyJWT && e.s.assertionFile == "" || m.name == secretJWT)
}

// isPlain reports whether form encoding leaves text as it is.
func isPlain(text string) bool { return url.QueryEscape(text) == text }

// run runs the steps and writes the report.
func (e *examination) run(ctx context.Context, steps []step) error {
	defer e.plain.close()
	if e.certified != nil {
		defer e.certified.close()
	}
	fmt.Fprintln(e.out)
	e.checkSecret()
	e.checkCertificate(ctx)
	for _, st := range steps {
		if e.stopped || e.out.err != nil { // Or nobody reads the report.
			break
		}
		st.run(ctx)
		if ctx.Err() != nil {
			return &failure{statusTemporary, context.Cause(ctx)}
		}
	}
	e.reportToken()
	e.reportTimes()
	if e.method == nil && e.status == 0 {
		e.fail(statusRefused, "credentials", "they are not accepted in any of the ways that were tried; check them, and how the client is registered")
	}
	fmt.Fprintln(e.out)
	if e.method == nil {
		return &failure{e.status, errors.New("no token: see the report")}
	}
	code, err := e.code()
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "The Config for it:\n\n%s", code)
	if e.status != 0 {
		return &failure{e.status, errors.New("there is something to mend: see the lines that begin with fail")}
	}
	return nil
}
