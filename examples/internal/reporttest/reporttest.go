// Package reporttest tests the programs in examples.
package reporttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tokenPattern matches the tokens of clientcredentialstest.
var tokenPattern = regexp.MustCompile(`[A-Z2-7]{26}`)

// Run runs a program. It fails the test unless the program makes that many checks and
// all of them pass. It returns the output of the program.
func Run(t *testing.T, checks int, run func(context.Context, io.Writer) error, secrets ...string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), "%s", &out)
	text := out.String()
	require.Contains(t, text, fmt.Sprintf("All %d checks passed.", checks))
	RequireNoSecret(t, text, secrets...)
	return text
}

// Interrupt runs a program whose context ends after a while. It fails the test unless the
// program then ends soon.
func Interrupt(t *testing.T, after time.Duration, run func(context.Context, io.Writer) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	var out bytes.Buffer
	start := time.Now()
	require.ErrorIs(t, run(ctx, &out), context.DeadlineExceeded, "%s", &out)
	require.Less(t, time.Since(start), after+5*time.Second)
}

// RequireNoSecret fails the test if text contains a token or one of the secrets.
func RequireNoSecret(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		require.NotContains(t, text, secret)
	}
	require.NotRegexp(t, tokenPattern, text)
}
