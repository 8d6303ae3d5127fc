// Package ascii compares names as protocols do: only the letters of ASCII have a case.
// Unicode has more. It folds the Kelvin sign to k, ſ to s and İ to i, which makes different
// host names the same text.
package ascii

// Lower returns s with A to Z in lower case, and everything else as it is.
func Lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			lower := []byte(s)
			for ; i < len(lower); i++ {
				lower[i] = lowerByte(lower[i])
			}
			return string(lower)
		}
	}
	return s
}

// EqualFold reports whether a and b are the same but for the case of ASCII letters.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
