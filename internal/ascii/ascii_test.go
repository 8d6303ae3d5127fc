package ascii

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyASCIIHasCase(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a": "a", "AbZ@[`{09": "abz@[`{09", "é": "é", "É": "É",
		"\u212a": "\u212a", "\u0130": "\u0130", "\u1e9e": "\u1e9e", "\u017f": "\u017f", "\u2126": "\u2126", "A\xff": "a\xff",
	} {
		require.Equal(t, want, Lower(text), "%q", text)
		require.True(t, EqualFold(text, want))
	}
	for _, pair := range [][2]string{{"\u212a", "k"}, {"\u017f", "S"}, {"\u0130", "i"}, {"\u1e9e", "ß"}, {"É", "é"}, {"a", "aa"}} {
		require.False(t, EqualFold(pair[0], pair[1]), "%q", pair)
	}
}
