package clientcredentials

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"time"

	"golang.org/x/oauth2"
)

// This file is about the types of golang.org/x/oauth2 that programs look for:
// what Config.TokenSource returns, and who is calling.

// maxShellHold is how long a shell keeps a stale token before it asks again.
const maxShellHold = time.Second

// A shelledSource is the source inside the value that Config.TokenSource returns. The
// value itself has the unexported type that oauth2.ReuseTokenSource returns, as
// upstream's has: oauth2.NewClient uses that type as it is, and
// oauth2.ReuseTokenSourceWithExpiry sets its margin. Both would wrap a value of another
// type in such a shell, which calls Token only shortly before the shell's token expires.
//
// A shell returns the same token until less of its life is left than its margin, and holds a
// lock while it asks for another token. So when the shell calls Token, Token sets the
// shell's margin so that the shell asks again when there is something to do, which is when
// the token becomes stale. If the program has set the margin, it stays.
type shelledSource struct {
	*Source
	shell  oauth2.TokenSource
	margin reflect.Value // the shell's; used with its lock held
	own    time.Duration // the margin that Token has set; 0 is the shell's default
}

func newShelledSource(s *Source) oauth2.TokenSource {
	inner := &shelledSource{Source: s}
	inner.shell = oauth2.ReuseTokenSource(nil, inner)
	// There is no exported way to read the margin. If the field should be gone one day, a
	// test fails, and the shell does what upstream's does: it asks 10 seconds before the
	// expiry.
	if v := reflect.ValueOf(inner.shell); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if field := v.Elem().FieldByName("expiryDelta"); field.IsValid() && field.CanInt() {
			inner.margin = field
		}
	}
	return inner.shell
}

// Token returns a token for the shell to keep.
func (s *shelledSource) Token() (*oauth2.Token, error) {
	// The caller may be another shell around the same source, made by
	// oauth2.ReuseTokenSource with a token. It doesn't hold this shell's lock.
	mine := s.margin.IsValid() && isCaller(shellTokenName, s.shell)
	var early time.Duration
	if mine {
		if margin := time.Duration(s.margin.Int()); margin != s.own && margin != 0 {
			mine, early = false, margin
		}
	}
	c, err := s.get(context.Background(), early)
	if err != nil {
		return nil, err
	}
	if mine && c.dead != forever {
		s.own = c.marginAt(time.Now())
		oauth2.ReuseTokenSourceWithExpiry(nil, s.shell, s.own)
	}
	return c.copy(), nil
}

// marginAt returns the margin with which a shell keeps c until c is stale or, if
// c is stale already, for a moment. It is never 0, which stands for a default.
func (c *cachedToken) marginAt(now time.Time) time.Duration {
	until := c.soft
	if age := c.age(now); age >= until {
		until = age + min(maxShellHold, max(c.dead-age, 0)/4)
	}
	if margin := c.life - until; margin != 0 {
		return margin
	}
	return 1
}

// The names of the two methods of oauth2 that isCaller looks for, as a stack trace shows
// them. A test compares them with the real names.
const (
	roundTripName  = "golang.org/x/oauth2.(*Transport).RoundTrip"
	shellTokenName = "golang.org/x/oauth2.(*reuseTokenSource).Token"
)

// isCaller reports whether its caller was called by that method of that receiver, which is a
// pointer. The method's name isn't enough, and only a stack trace shows the receiver. If
// it doesn't, the answer is no, which costs no more than what upstream does anyway.
//
// The method in question must call isCaller directly.
func isCaller(method string, receiver any) bool {
	buffer := make([]byte, 2048)
	buffer = buffer[:runtime.Stack(buffer, false)]
	// The trace has a line for the goroutine, then two for each function: isCaller, its
	// caller, and the method that called that.
	lines := bytes.SplitN(buffer, []byte("\n"), 7)
	if len(lines) != 7 {
		return false
	}
	call := fmt.Appendf(nil, "%s(%p", method, receiver)
	rest, found := bytes.CutPrefix(lines[5], call)
	return found && len(rest) > 0 && (rest[0] == ',' || rest[0] == ')')
}

// maxWrappers bounds the walk along RoundTrippers and TokenSources that wrap each other.
const maxWrappers = 8

// leadsBackTo reports whether requests through rt need a token of s, so that a token
// request through rt would wait for itself. An oauth2.Transport asks its Source without a
// context, so this can't be noticed once the request is on its way. The walk sees what
// structs hold as a RoundTripper or a TokenSource, but not what functions hold.
func leadsBackTo(rt http.RoundTripper, s *Source) bool {
	return rt != nil && reaches(reflect.ValueOf(rt), reflect.ValueOf(s).Pointer(), maxWrappers)
}

func reaches(v reflect.Value, source uintptr, depth int) bool {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if v.Kind() == reflect.Pointer {
		switch v.Type() {
		case reflect.TypeFor[*Source]():
			return v.Pointer() == source
		case reflect.TypeFor[*http.Transport]():
			return false // The usual end.
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || depth == 0 {
		return false
	}
	for i := range v.NumField() {
		switch v.Type().Field(i).Type {
		case reflect.TypeFor[http.RoundTripper](), reflect.TypeFor[oauth2.TokenSource](), reflect.TypeFor[*oauth2.Transport](), reflect.TypeFor[*Source]():
			if reaches(v.Field(i), source, depth-1) {
				return true
			}
		}
	}
	return false
}
