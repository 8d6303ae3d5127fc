// Package reporttest tests the programs in examples.
package reporttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// tokenPattern is what tokens of clientcredentialstest look like.
var tokenPattern = regexp.MustCompile(`[A-Z2-7]{26}`)

// Run runs a program, and fails the test unless all that it claims held, which is
// that many things. It returns what the program has printed.
func Run(t *testing.T, checks int, run func(context.Context, io.Writer) error, secrets ...string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), "%s", &out)
	text := out.String()
	require.Contains(t, text, fmt.Sprintf("All of it held (%d of %d checks).", checks, checks))
	RequireNoSecret(t, text, secrets...)
	return text
}

// RequireNoSecret fails the test if text has a token in it, or one of the secrets.
func RequireNoSecret(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		require.NotContains(t, text, secret)
	}
	require.NotRegexp(t, tokenPattern, text)
}
