// Package invisible knows the characters that people can't see. In a secret, an identifier or
// an address they are a mistake, and an error has to name them.
package invisible

import (
	"fmt"
	"unicode"
)

// Is reports whether people can't see r, or take it for a space.
func Is(r rune) bool {
	switch {
	case r == ' ':
		return false
	case unicode.IsControl(r), r == '\u2800': // a pattern of Braille without dots
		return true
	}
	return unicode.In(r, unicode.Zs, unicode.Zl, unicode.Zp, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// Find returns what the first character is called for which is returns true, such as "a zero
// width space (U+200B)", for an error. It is for characters that Is is true
// of. Empty: there is none.
func Find(text string, is func(rune) bool) string {
	for _, r := range text {
		if is(r) {
			return nameOf(r)
		}
	}
	return ""
}

func nameOf(r rune) string {
	name := "an invisible character"
	switch r {
	case ' ':
		name = "a space"
	case 0:
		name = "a NUL, as in UTF-16"
	case '\t':
		name = "a tab"
	case '\n', '\r', '\u2028', '\u2029':
		name = "a line break"
	case '\u00a0', '\u202f':
		name = "a no-break space"
	case '\u00ad':
		name = "a soft hyphen"
	case '\u200b':
		name = "a zero width space"
	case '\u200c', '\u200d':
		name = "a zero width joiner"
	case '\u200e', '\u200f', '\u202a', '\u202b', '\u202c', '\u202d', '\u202e':
		name = "a mark of the writing direction"
	case '\u2060':
		name = "a word joiner"
	case '\ufeff':
		name = "a byte order mark"
	default:
		switch {
		case unicode.IsControl(r):
			name = "a control character"
		case unicode.Is(unicode.Zs, r):
			name = "a space other than the usual one"
		}
	}
	return fmt.Sprintf("%s (%U)", name, r)
}
