package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// maxInput is how many bytes of input inspect accepts.
const maxInput = 1 << 20

// inspect is cctoken inspect.
func inspect(ctx context.Context, c *call) error {
	inJSON := c.flags.Bool("json", false, "")
	if err := c.parseFlags(); err != nil {
		return err
	}
	if c.flags.NArg() > 1 {
		return usagef("there are too many arguments; give the name of one file, or - for standard input")
	}
	input, err := readInput(ctx, c.in, c.flags.Arg(0))
	if err != nil {
		return err
	}
	text, err := tokenIn(input)
	if err != nil {
		return err
	}
	t := parseToken(text)
	if *inJSON {
		return writeJSON(c.out, t)
	}
	t.describe(c.out, time.Now())
	return nil
}

// readInput reads the file with this name, or standard input. No error quotes the name,
// because it may be a token. When ctx ends, readInput returns, and the read goes on in
// its goroutine: nothing can interrupt it.
func readInput(ctx context.Context, stdin io.Reader, name string) ([]byte, error) {
	var input []byte
	done := make(chan error, 1)
	go func() {
		var err error
		in := stdin
		if name != "" && name != "-" {
			file, err := os.Open(name) // That of a pipe waits until somebody writes to it.
			if err != nil {
				done <- usagef("the argument isn't the name of a file that can be read; if it is a token, don't give it as an argument, because every user of this machine can read the arguments of a program: pipe it in, as in cctoken token | cctoken inspect")
				return
			}
			defer file.Close()
			in = file
		}
		if input, err = io.ReadAll(io.LimitReader(in, maxInput+1)); err != nil {
			err = usagef("the input can't be read; check the file")
		}
		done <- err
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case err := <-done:
		if err != nil {
			return nil, err
		}
	}
	if len(input) > maxInput {
		return nil, usagef("the input is larger than 1 MiB; give a token")
	}
	return input, nil
}

// tokenIn returns the token in input, which is the token itself, an Authorization header
// field or a token response.
func tokenIn(input []byte) (string, error) {
	text := strings.TrimSpace(string(input))
	if strings.HasPrefix(text, "{") {
		var response struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(text), &response); err != nil || response.AccessToken == "" {
			return "", usagef("the input is JSON without an access_token; give a token or a token response")
		}
		text = response.AccessToken
	}
	if name, value, ok := strings.Cut(text, ":"); ok && strings.EqualFold(name, "Authorization") {
		text = strings.TrimSpace(value)
	}
	for _, scheme := range []string{"Bearer ", "DPoP "} {
		if len(text) > len(scheme) && strings.EqualFold(text[:len(scheme)], scheme) {
			text = strings.TrimSpace(text[len(scheme):])
		}
	}
	switch {
	case text == "":
		return "", usagef("the input is empty; give a token")
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", usagef("the input isn't a token: it contains white space or characters outside of ASCII; give nothing but the token")
	}
	return text, nil
}

// A token is what a token says about itself.
type token struct {
	Format   string         `json:"format"`   // jwt, jwe or opaque
	Verified bool           `json:"verified"` // always false: verification needs the server's keys
	Size     int            `json:"size"`     // in bytes
	Header   map[string]any `json:"header,omitempty"`
	Claims   map[string]any `json:"claims,omitempty"`
}

// parseToken decodes a JWT, RFC 7519, or the header of an encrypted one. Other tokens are
// opaque.
func parseToken(text string) *token {
	t := &token{Format: "opaque", Size: len(text)}
	parts := strings.Split(text, ".")
	header, err := decodePart(parts[0])
	if err != nil || header["alg"] == nil {
		return t
	}
	switch len(parts) {
	case 5:
		t.Format, t.Header = "jwe", header
	case 3:
		if claims, err := decodePart(parts[1]); err == nil {
			t.Format, t.Header, t.Claims = "jwt", header, claims
		}
	}
	return t
}

// algorithm returns the alg of a JWT, or "".
func (t *token) algorithm() string {
	algorithm, _ := t.Header["alg"].(string)
	return algorithm
}

func decodePart(part string) (map[string]any, error) {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return nil, err
	}
	if decoder.More() || members == nil {
		return nil, errors.New("this isn't one JSON object")
	}
	return members, nil
}

// describe writes t for people to read.
func (t *token) describe(out io.Writer, now time.Time) {
	say := func(format string, args ...any) {
		fmt.Fprintln(out, redact.OneLine(fmt.Sprintf(format, args...)))
	}
	begin := func(part string) { fmt.Fprintf(out, "\n%s\n", part) }
	switch t.Format {
	case "opaque":
		say("An opaque token of %d bytes: only its server knows what it means.", t.Size)
		return
	case "jwe":
		say("An encrypted JWT of %d bytes: only its API can read it.", t.Size)
	default:
		say("A JWT of %d bytes. NOT VERIFIED: anybody could have written it.", t.Size)
	}
	begin("header")
	sayMembers(say, t.Header)
	if t.Format == "jwe" {
		return
	}
	begin("claims")
	sayMembers(say, t.Claims)
	begin("in words")
	t.explain(now, func(name, format string, args ...any) { say("  %-9s %s", name, fmt.Sprintf(format, args...)) })
}

func sayMembers(say func(string, ...any), members map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value, err := toJSON(members[name], "")
		if err != nil {
			continue // This can't happen: the value was JSON.
		}
		if quoted := strconv.Quote(name); quoted[1:len(quoted)-1] != name {
			name = quoted
		}
		say("  %-9s %s", name, value)
	}
}

// explain says what some of the claims mean.
func (t *token) explain(now time.Time, say func(name, format string, args ...any)) {
	if strings.EqualFold(t.algorithm(), "none") {
		say("signature", "none: no API should accept this token")
	}
	expiry, hasExpiry := moment(t.Claims["exp"])
	switch {
	case !hasExpiry:
		say("expiry", "unknown: there is no exp")
	case expiry.After(now):
		say("expiry", "expires in %s, at %s", period(expiry.Sub(now)), clock(expiry))
	default:
		say("expiry", "EXPIRED %s ago, at %s", period(now.Sub(expiry)), clock(expiry))
	}
	if issued, ok := moment(t.Claims["iat"]); ok {
		text := fmt.Sprintf("issued %s ago", period(now.Sub(issued)))
		if issued.After(now) {
			text = fmt.Sprintf("issued %s in the future (the clocks differ)", period(issued.Sub(now)))
		}
		if hasExpiry {
			text += fmt.Sprintf(", valid for %s", period(expiry.Sub(issued)))
		}
		say("issued", "%s", text)
	}
	if begin, ok := moment(t.Claims["nbf"]); ok && begin.After(now) {
		say("begin", "NOT VALID before %s, in %s", clock(begin), period(begin.Sub(now)))
	}
	say("scopes", "%s", list(t.scopes(), "none"))
	say("audience", "%s", list(texts(t.Claims["aud"]), "none: an API can't check that the token is for it"))
	say("binding", "%s", t.binding())
}

// scopes returns the scopes in the claim of RFC 9068, Section 2.2.3, or in scp, which
// some servers use instead.
func (t *token) scopes() []string {
	scopes := texts(t.Claims["scope"])
	if scopes == nil {
		scopes = texts(t.Claims["scp"])
	}
	return strings.Fields(strings.Join(scopes, " "))
}

// confirmation returns what the token is bound to, RFC 7800, Section 3.1; empty: nothing.
func (t *token) confirmation() map[string]any {
	cnf, _ := t.Claims["cnf"].(map[string]any)
	return cnf
}

// binding says what the token is bound to.
func (t *token) binding() string {
	cnf := t.confirmation()
	switch {
	case len(cnf) == 0:
		return "none: anybody who has the token can use it"
	case cnf["jkt"] != nil:
		return fmt.Sprintf("to the DPoP key with the thumbprint %v (RFC 9449)", cnf["jkt"])
	case cnf["x5t#S256"] != nil:
		return fmt.Sprintf("to the client certificate with the thumbprint %v (RFC 8705)", cnf["x5t#S256"])
	}
	return "by " + list(slices.Sorted(maps.Keys(cnf)), "")
}

// texts returns the strings in a claim, which is a string or a list.
func texts(claim any) []string {
	switch claim := claim.(type) {
	case string:
		return []string{claim}
	case []any:
		var all []string
		for _, element := range claim {
			if text, ok := element.(string); ok {
				all = append(all, text)
			}
		}
		return all
	}
	return nil
}

func list(texts []string, none string) string {
	if len(texts) == 0 {
		return none
	}
	return strings.Join(texts, ", ")
}

// moment parses a NumericDate, RFC 7519, Section 2.
func moment(claim any) (time.Time, bool) {
	number, ok := claim.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	seconds, err := number.Float64()
	if err != nil || math.Abs(seconds) > 1<<40 { // More than 30,000 years away.
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// period returns d, without its sign, in its two largest units.
func period(d time.Duration) string {
	d = max(d, -d).Round(time.Second)
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, unit := range units {
		if d < unit.size {
			continue
		}
		text := fmt.Sprintf("%d%s", d/unit.size, unit.name)
		if i+1 < len(units) {
			if rest := d % unit.size / units[i+1].size; rest > 0 {
				text += fmt.Sprintf(" %d%s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "0s"
}
