package redact

import (
	"context"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// Trustworthy returns the errors in the tree of err whose whole texts were written by
// the standard library, or that are one of own. No peer has a say in these texts, so
// that they hide no secret, whatever words are in them.
//
// An error of net/http isn't trustworthy, because it may quote an answer. Neither is
// any error that wraps one that isn't.
func Trustworthy(err error, own ...error) (trustworthy []error) {
	if err == nil {
		return nil
	}
	if isTrustworthy(err, own) {
		return []error{err}
	}
	for _, wrapped := range unwrap(err) {
		trustworthy = append(trustworthy, Trustworthy(wrapped, own...)...)
	}
	return trustworthy
}

// isConstant reports whether err is one of the errors whose types say nothing about
// their texts.
func isConstant(err error) bool {
	return contains([]error{context.Canceled, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, http.ErrSchemeMismatch}, err)
}

func isTrustworthy(err error, own []error) bool {
	if contains(own, err) || isConstant(err) {
		return true
	}
	wrapped := unwrap(err)
	switch packageOf(err) {
	case "context", "crypto/tls", "crypto/x509", "internal/poll", "net", "os", "syscall":
	case "errors", "fmt":
		if !beginsLikeTLS(err.Error()) {
			return false
		}
	default:
		return false
	}
	_, isOperation := err.(*net.OpError) //nolint:errorlint // What it wraps is looked at below.
	for _, w := range wrapped {
		if !isTrustworthy(w, own) && (!isOperation || !isPlainConstant(w)) {
			return false
		}
	}
	return true
}

// beginsLikeTLS reports whether a text is one of crypto/tls or crypto/x509. Many of
// their errors have no types.
func beginsLikeTLS(text string) bool {
	const longest = 200
	return len(text) <= longest && (strings.HasPrefix(text, "tls: ") || strings.HasPrefix(text, "x509: ")) && !strings.Contains(text, "\n")
}

// isPlainConstant reports whether err looks like a constant of package net: lower-case
// words, which are no copy of a request.
func isPlainConstant(err error) bool {
	return packageOf(err) == "errors" && len(unwrap(err)) == 0 &&
		!strings.ContainsFunc(err.Error(), func(r rune) bool { return r != ' ' && (r < 'a' || 'z' < r) })
}

// packageOf returns the path of the package that declares the type of err.
func packageOf(err error) string {
	t := reflect.TypeOf(err)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath()
}

// contains reports whether err itself is in list. Some errors can't be compared.
func contains(list []error, err error) bool {
	return reflect.ValueOf(err).Comparable() && slices.ContainsFunc(list, func(known error) bool {
		return known != nil && reflect.ValueOf(known).Comparable() && known == err //nolint:errorlint // Not what it wraps.
	})
}

// unwrap returns what err wraps.
func unwrap(err error) (wrapped []error) {
	switch err := err.(type) { //nolint:errorlint // It's about err itself.
	case interface{ Unwrap() error }:
		wrapped = []error{err.Unwrap()}
	case interface{ Unwrap() []error }:
		wrapped = err.Unwrap()
	}
	kept := wrapped[:0:0]
	for _, w := range wrapped {
		if w != nil {
			kept = append(kept, w)
		}
	}
	return kept
}
