package keyfile

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/seed-5bfa0880/clientcredentials/internal/invisible"
)

// A ValueOf is what a value is, in the words that errors use: a secret, or a client
// identifier.
type ValueOf string

// Parse returns the value in a file or in the output of a program. A line break at its end
// isn't part of it, nor is a byte order mark at its beginning. A character that people can't
// see is an error.
func (v ValueOf) Parse(data []byte) (string, error) {
	value := strings.TrimSuffix(strings.TrimSuffix(string(Text(data)), "\n"), "\r")
	if err := v.CheckVisible(value); err != nil {
		return "", err
	}
	return value, nil
}

// CheckVisible reports a value that is empty, or has a character that people can't see.
func (v ValueOf) CheckVisible(value string) error { return v.check(value, invisible.Is) }

// Check reports certain mistakes only. RFC 6749, Appendix A.2, allows printable ASCII, but
// servers accept more.
func (v ValueOf) Check(value string) error { return v.check(value, unicode.IsControl) }

// check reports a value that is empty, or its first character that is wrong.
func (v ValueOf) check(value string, isWrong func(rune) bool) error {
	if value == "" {
		return fmt.Errorf("the %s is empty", v)
	}
	if found := invisible.Find(value, isWrong); found != "" {
		return fmt.Errorf("the %[1]s contains %[2]s; remove it where the %[1]s is stored", v, found)
	}
	return nil
}
