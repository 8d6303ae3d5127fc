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
	switch packageOf(err) {
	case "context", "crypto/tls", "crypto/x509", "internal/poll", "net", "os", "syscall":
	default:
		text := err.Error()
		return isSentence(err) && (strings.HasPrefix(text, "tls: ") || strings.HasPrefix(text, "x509: "))
	}
	_, isOperation := err.(*net.OpError) //nolint:errorlint // What it wraps is looked at below.
	for _, wrapped := range unwrap(err) {
		if !isTrustworthy(wrapped, own) && (!isOperation || !isSentence(wrapped)) {
			return false
		}
	}
	return true
}

// isSentence reports whether err looks like one of the many errors of crypto/tls and net
// that have no types of their own: words and nothing else. A copy of a request has other
// characters, and so has a good secret.
func isSentence(err error) bool {
	const longest = 200
	text := err.Error()
	return packageOf(err) == "errors" && len(unwrap(err)) == 0 && len(text) <= longest &&
		!strings.ContainsFunc(text, func(r rune) bool {
			return (r < 'a' || 'z' < r) && (r < 'A' || 'Z' < r) && !strings.ContainsRune(" :;,.'()-", r)
		})
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
