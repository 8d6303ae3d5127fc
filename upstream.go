package clientcredentials

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// This file is about the types of golang.org/x/oauth2 that programs look for:
// what Config.TokenSource returns, and who is calling.

// maxShellHold is how long a shell keeps a stale token before it asks again.
const maxShellHold = time.Second

// A shelledSource is the source inside of what Config.TokenSource returns, which
// is of the unexported type that oauth2.ReuseTokenSource returns, like upstream's:
// oauth2.NewClient uses that as it is, and oauth2.ReuseTokenSourceWithExpiry sets
// its margin. Other types both would wrap in such a shell, and Token would be
// called only when the shell's token is as good as dead.
//
// A shell returns the same token until so much is left of its life as its margin
// says, and holds a lock while it asks for another. So Token, when called by the
// shell, sets the margin to have it ask again as soon as there is something to do,
// which is when the token becomes stale. A margin that the program has set itself
// stays.
type shelledSource struct {
	*Source
	shell  oauth2.TokenSource
	margin reflect.Value // the shell's; used with its lock held
	own    time.Duration // what the margin was set to last; 0 is the shell's default
}

func newShelledSource(s *Source) oauth2.TokenSource {
	inner := &shelledSource{Source: s}
	inner.shell = oauth2.ReuseTokenSource(nil, inner)
	// There is no exported way to read the margin. Without it the shell does as
	// upstream's: it asks 10 seconds before the expiry. A test says so if the field
	// should be gone one day.
	if v := reflect.ValueOf(inner.shell); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if field := v.Elem().FieldByName("expiryDelta"); field.IsValid() && field.CanInt() {
			inner.margin = field
		}
	}
	return inner.shell
}

// Token returns a token for the shell to keep.
func (s *shelledSource) Token() (*oauth2.Token, error) {
	// Another shell around the same source, by oauth2.ReuseTokenSource with a
	// token, doesn't hold this one's lock.
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

// marginAt returns the margin with which a shell keeps c until it is stale or, if
// it is already, for a moment. It is never 0, which stands for a default.
func (c *cachedToken) marginAt(now time.Time) time.Duration {
	until := c.soft
	if age := c.age(now); age >= until {
		until = age + min(maxShellHold, max(c.dead-age, 0)/4)
	}
	if margin := c.token.Expiry.Sub(c.sent.Add(until)); margin != 0 {
		return margin
	}
	return 1
}

var (
	roundTripName  = runtime.FuncForPC(reflect.ValueOf((*oauth2.Transport).RoundTrip).Pointer()).Name()
	shellTokenName = strings.Replace(roundTripName, "(*Transport).RoundTrip", "(*reuseTokenSource).Token", 1)
)

// isCaller reports whether the method that called it, and whose name and pointer
// receiver are given, was called by that method of that receiver. The function's
// name isn't enough, and only a stack trace tells the receiver. Where it doesn't,
// the answer is no, and that costs no more than what upstream does anyway.
//
// To be called directly by the method in question.
func isCaller(method string, receiver any) bool {
	buffer := make([]byte, 2048)
	buffer = buffer[:runtime.Stack(buffer, false)]
	// A line for the goroutine, then two for each function: isCaller, the method
	// that asks, and the one in question.
	lines := bytes.SplitN(buffer, []byte("\n"), 7)
	if len(lines) != 7 {
		return false
	}
	call := fmt.Appendf(nil, "%s(%p", method, receiver)
	rest, found := bytes.CutPrefix(lines[5], call)
	return found && len(rest) > 0 && (rest[0] == ',' || rest[0] == ')')
}
