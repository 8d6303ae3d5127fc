package redact

import (
	"encoding/base64"
	"math/bits"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// A matcher finds secrets in a text in which any character may be encoded.
//
// It is a nondeterministic automaton, because some texts can be read in two ways:
// %25 is an encoded percent sign, or three characters that aren't encoded. For each
// secret it has a chain of states: one for each character that may come next, and
// one for the end.
//
// A set of states is a set of bits, so that all states advance at once, by a few
// operations on words. Each byte of the text costs no more than that, whatever the
// text says. Backtracking, or a list of states, would cost the product of both
// lengths if a server fills a page with what is almost a secret.
type matcher struct {
	words int             // in a set of states
	first edges           // where a secret begins
	last  edges           // where one ends
	odd   states          // where JSON may write a backslash before the next character
	ascii [128]states     // where this character comes next
	other map[rune]states // the same for the rest of Unicode
}

// edges are states at which secrets begin, or at which they end. A short secret is found
// only as a whole word: it begins where a word begins, and ends where a word ends.
type edges struct {
	all      states
	anywhere states // without the edges of short secrets
}

func newEdges(words int) edges { return edges{make(states, words), make(states, words)} }

func (e edges) add(state int, onlyOfWords bool) {
	e.all.add(state)
	if !onlyOfWords {
		e.anywhere.add(state)
	}
}

// states is a set of states.
type states []uint64

func (s states) add(state int) { s[state/64] |= 1 << (state % 64) }

// meets reports whether s and t have a state in common.
func (s states) meets(t states) bool {
	for i := range s {
		if s[i]&t[i] != 0 {
			return true
		}
	}
	return false
}

// A span is a part of a text.
type span struct{ begin, end int }

// A start is where in a text a secret begins.
type start struct{ at, state int }

func newMatcher(secrets []string) matcher {
	var m matcher
	patterns := make([][]rune, 0, 2*len(secrets))
	size := 0
	for _, secret := range secrets {
		for _, pattern := range [][]rune{characters(secret), characters(base64.StdEncoding.EncodeToString([]byte(secret)))} {
			patterns = append(patterns, pattern)
			size += len(pattern) + 1
		}
	}
	m.words = (size + 63) / 64
	m.first, m.last, m.odd = newEdges(m.words), newEdges(m.words), make(states, m.words)
	state := 0
	for i, pattern := range patterns {
		if len(pattern) == 0 {
			continue
		}
		inBase64 := i%2 == 1
		short := isShort(secrets[i/2])
		unpadded := withoutPadding(pattern)
		m.first.add(state, short && isWord(pattern[0]))
		for j, r := range pattern {
			m.expect(r, state)
			if !isPlain(r) {
				m.odd.add(state)
			}
			if 0 < len(unpadded) && len(unpadded) <= j { // Padding may be missing.
				m.last.add(state, short && isWord(pattern[j-1]))
			}
			switch {
			case inBase64 && r == '+': // The alphabet for URLs has two other characters.
				m.expect('-', state)
			case inBase64 && r == '/':
				m.expect('_', state)
			case r > utf8.MaxRune: // A peer that expects UTF-8 replaces the byte.
				m.expect(utf8.RuneError, state)
			}
			state++
		}
		m.last.add(state, short && isWord(pattern[len(pattern)-1]))
		state++
	}
	return m
}

// withoutPadding returns pattern without the padding of base64.
func withoutPadding(pattern []rune) []rune {
	for len(pattern) > 0 && pattern[len(pattern)-1] == '=' {
		pattern = pattern[:len(pattern)-1]
	}
	return pattern
}

// minAnywhere is how many characters a secret has that is found also inside words.
// Shorter ones are parts of ordinary words, like "test" or "x".
const minAnywhere = 8

func isShort(secret string) bool { return utf8.RuneCountInString(secret) < minAnywhere }

// isWord reports whether r belongs to a word. Names like client_disabled and
// invalid-client are one word.
func isWord(r rune) bool {
	return r == '_' || r == '-' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// isWordEnd reports whether no word goes on at a position in text.
func isWordEnd(text string, position int) bool {
	r, _ := utf8.DecodeRuneInString(text[position:])
	return !isWord(r)
}

// isWordBegin reports whether no word goes on until a position in text. A character
// that ends there may be encoded: in client_secret%3Dx the secret is the last word.
func isWordBegin(text string, position int) bool {
	if r, _ := utf8.DecodeLastRuneInString(text[:position]); !isWord(r) {
		return true
	}
	for i := position - 1; i >= max(position-maxEntity, 0); i-- {
		if strings.IndexByte(`%&\`, text[i]) < 0 {
			continue
		}
		var buffer [maxReadings]reading
		for _, reading := range readings(buffer[:0], text[i:]) {
			if i+reading.size == position && !isWord(reading.char) {
				return true
			}
		}
	}
	return false
}

// expect has r lead from state to the next.
func (m *matcher) expect(r rune, state int) {
	from := m.from(r)
	if from == nil {
		from = make(states, m.words)
		switch {
		case r < utf8.RuneSelf:
			m.ascii[r] = from
		case m.other == nil:
			m.other = map[rune]states{r: from}
		default:
			m.other[r] = from
		}
	}
	from.add(state)
}

// from returns the states from which r leads to the next, or nil.
func (m *matcher) from(r rune) states {
	if 0 <= r && r < utf8.RuneSelf {
		return m.ascii[r]
	}
	return m.other[r]
}

// find returns where in text the secrets are that begin before limit. Secrets that
// overlap are in one span.
func (m *matcher) find(text string, limit int) []span {
	if m.words == 0 {
		return nil
	}
	run := run{m, text, make(states, window*m.words)}
	var found []span
	for starts := run.starts(limit); len(starts) > 0; {
		s := span{starts[0].at, starts[0].at + 1}
		for len(starts) > 0 && starts[0].at < s.end {
			inside := 1
			for inside < len(starts) && starts[inside].at < s.end {
				inside++
			}
			s.end = max(s.end, run.end(starts[:inside]))
			starts = starts[inside:]
		}
		found = append(found, s)
	}
	return found
}

// A run is one search in a text. It goes through the text in one direction at a time,
// and keeps the sets of states of the last positions.
type run struct {
	*matcher
	text string
	sets states
}

// window is for how many positions a run keeps sets: more than a reading is long.
const window = 32

// at returns the set of states for a position in the text.
func (r *run) at(position int) states {
	i := position % window * r.words
	return r.sets[i : i+r.words]
}

// starts returns where secrets begin, in order. It goes from the end of the text to
// its beginning. The states of a position are those from which the text that follows
// leads to the end of a secret.
func (r *run) starts(limit int) []start {
	var starts []start
	copy(r.at(len(r.text)), r.last.all)
	for i := len(r.text) - 1; i >= 0; i-- {
		now := r.at(i)
		copy(now, r.ends(i))
		var buffer [maxReadings]reading
		for _, reading := range readings(buffer[:0], r.text[i:]) {
			if from := r.from(reading.char); from != nil {
				next := r.at(i + reading.size)
				carry := uint64(0)
				for w := len(now) - 1; w >= 0; w-- {
					now[w] |= (next[w]>>1 | carry) & from[w]
					carry = next[w] << 63
				}
			}
		}
		if r.text[i] == '\\' {
			for w, next := range r.at(i + 1) {
				now[w] |= next & r.odd[w]
			}
		}
		if i < limit && now.meets(r.first.all) {
			first := r.first.all
			if !isWordBegin(r.text, i) {
				first = r.first.anywhere
			}
			for w := range now {
				for found := now[w] & first[w]; found != 0; found &= found - 1 {
					starts = append(starts, start{i, w*64 + bits.TrailingZeros64(found)})
				}
			}
		}
	}
	clear(r.sets)
	slices.Reverse(starts)
	return starts
}

// ends returns the states at which a secret may end at a position in the text.
func (r *run) ends(position int) states {
	if isWordEnd(r.text, position) {
		return r.last.all
	}
	return r.last.anywhere
}

// end returns where the secrets that begin at starts have all ended. It goes from
// the first start towards the end of the text. The states of a position are those
// that have been reached there.
func (r *run) end(starts []start) (end int) {
	live := starts[len(starts)-1].at // where the last set is that isn't empty
	for i := starts[0].at; i <= live; i++ {
		now := r.at(i)
		if now.meets(r.ends(i)) {
			end = i
		}
		for len(starts) > 0 && starts[0].at == i {
			now.add(starts[0].state)
			starts = starts[1:]
		}
		if i == len(r.text) {
			clear(now)
			break
		}
		var buffer [maxReadings]reading
		for _, reading := range readings(buffer[:0], r.text[i:]) {
			if from := r.from(reading.char); from != nil && now.meets(from) {
				live = max(live, i+reading.size)
				carry := uint64(0)
				for w, next := 0, r.at(i+reading.size); w < len(now); w++ {
					moved := now[w] & from[w]
					next[w] |= moved<<1 | carry
					carry = moved >> 63
				}
			}
		}
		if r.text[i] == '\\' && now.meets(r.odd) {
			live = max(live, i+1)
			for w, next := 0, r.at(i+1); w < len(now); w++ {
				next[w] |= now[w] & r.odd[w]
			}
		}
		clear(now)
	}
	return end
}

// characters returns the characters of s.
func characters(s string) []rune {
	list := make([]rune, 0, len(s))
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			r = byteAsRune(s[i])
		}
		list = append(list, r)
	}
	return list
}

// byteAsRune returns a number that no character has, for a byte that isn't UTF-8.
func byteAsRune(b byte) rune { return utf8.MaxRune + 1 + rune(b) }

// A reading is one way to read the beginning of a text.
type reading struct {
	char rune
	size int // how many bytes of the text are read
}

const (
	maxReadings = 4  // of one text
	maxEntity   = 16 // bytes in a character reference of HTML
)

// readings appends the ways to read the beginning of text. The matcher itself skips
// backslashes before a character.
func readings(list []reading, text string) []reading {
	list = appendCharacter(list, text, 1)
	switch text[0] {
	case '+':
		list = append(list, reading{' ', 1})
	case '%':
		list = appendBytes(list, text, len("%"))
	case '&':
		list = appendEntity(list, text)
	case '\\':
		list = appendEscape(list, text)
	}
	return list
}

// appendBytes reads text as bytes in two hexadecimal digits, each after a prefix of
// that length: a character in UTF-8, and one in Latin-1.
func appendBytes(list []reading, text string, prefix int) []reading {
	var char [utf8.UTFMax]byte
	size := prefix + 2
	n := 0
	for rest := text; n < len(char) && len(rest) >= size && strings.EqualFold(rest[:prefix], text[:prefix]); rest = rest[size:] {
		value, ok := number(rest[prefix:size], 16)
		if !ok {
			break
		}
		char[n] = byte(value & 0xff)
		n++
	}
	if n == 0 {
		return list
	}
	list = appendCharacter(list, string(char[:n]), size)
	return append(list, reading{rune(char[0]), size})
}

// appendCharacter reads the beginning of text as a character in UTF-8, and as a
// byte that isn't UTF-8. Each byte takes size bytes of the text that is searched.
func appendCharacter(list []reading, text string, size int) []reading {
	r, length := utf8.DecodeRuneInString(text)
	if r != utf8.RuneError || length > 1 {
		list = append(list, reading{r, length * size})
	}
	if text[0] >= utf8.RuneSelf {
		list = append(list, reading{byteAsRune(text[0]), size})
	}
	return list
}

// appendEntity reads text as a character reference of HTML.
func appendEntity(list []reading, text string) []reading {
	name, _, found := strings.Cut(text[len("&"):min(len(text), maxEntity)], ";")
	if !found {
		return list
	}
	var char rune
	switch name {
	case "quot":
		char = '"'
	case "apos":
		char = '\''
	case "amp":
		char = '&'
	case "lt":
		char = '<'
	case "gt":
		char = '>'
	default:
		digits, found := strings.CutPrefix(name, "#")
		if !found {
			return list
		}
		base := rune(10)
		if digits != "" && digits[0]|0x20 == 'x' {
			digits, base = digits[1:], 16
		}
		var ok bool
		if char, ok = number(digits, base); !ok {
			return list
		}
	}
	return append(list, reading{char, len(name) + len("&;")})
}

// appendEscape reads text as an escape of JSON, JavaScript, Python or Go that
// begins with a backslash and a letter.
func appendEscape(list []reading, text string) []reading {
	if len(text) < 2 {
		return list
	}
	switch text[1] {
	case 'x', 'X':
		return appendBytes(list, text, len(`\x`))
	case 'u', 'U':
		const short, long = len(`\u0000`), len(`\U00000000`)
		if char, ok := codeUnit(text); ok {
			list = append(list, reading{char, short})
			if low, ok := codeUnit(text[short:]); ok && utf16.IsSurrogate(char) {
				list = append(list, reading{utf16.DecodeRune(char, low), 2 * short})
			}
		}
		if len(text) >= long {
			if char, ok := number(text[2:long], 16); ok {
				list = append(list, reading{char, long})
			}
		}
		return list
	}
	if i := strings.IndexByte("abfnrtv", text[1]); i >= 0 {
		list = append(list, reading{rune("\a\b\f\n\r\t\v"[i]), 2})
	}
	return list
}

// codeUnit reads the \uXXXX at the beginning of text.
func codeUnit(text string) (rune, bool) {
	const size = len(`\u0000`)
	if len(text) < size || !strings.EqualFold(text[:2], `\u`) {
		return 0, false
	}
	return number(text[2:size], 16)
}

// number returns the value of digits, if it is that of a character.
func number(digits string, base rune) (value rune, ok bool) {
	for _, c := range []byte(digits) {
		digit := base
		switch {
		case '0' <= c && c <= '9':
			digit = rune(c - '0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			digit = rune(c|0x20-'a') + 10
		}
		if digit >= base {
			return 0, false
		}
		if value = value*base + digit; value > utf8.MaxRune {
			return 0, false
		}
	}
	return value, digits != ""
}
