package svg

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Check compares a picture with the file in which it is committed, by what they are made of.
// With update it writes the file.
func Check(t *testing.T, picture *Picture, file string, update bool) {
	t.Helper()
	drawn, err := picture.SVG()
	require.NoError(t, err)
	require.Less(t, len(drawn), 40_000)
	if update {
		require.NoError(t, os.WriteFile(file, []byte(drawn), 0o644)) //nolint:gosec // Everybody may read a document.
		return
	}
	committed, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, Structure(string(committed)), Structure(drawn), "run: make pictures")
}
