package clientcredentials

import (
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program that imports the library pays for it even if it never makes a token request.
func TestFootprint(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	t.Parallel()
	output, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for path := range strings.FieldsSeq(string(output)) {
		require.NotContains(t, []string{"regexp", "html"}, path, "300 kB for one error path")
		pkg, err := build.Import(path, ".", build.FindOnly)
		require.NoError(t, err)
		require.True(t, pkg.Goroot || strings.HasPrefix(path, "golang.org/x/oauth2") || strings.HasPrefix(path, "github.com/seed-5bfa0880/clientcredentials"), "a new dependency: %s", path)
	}

	// The runtime reports each package that does something when the program starts.
	program := filepath.Join(t.TempDir(), "program")
	output, err = exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/minimal").CombinedOutput()
	require.NoError(t, err, "%s", output)
	command := exec.CommandContext(t.Context(), program)
	command.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	output, err = command.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(output), "init runtime", "the trace is on")
	require.NotContains(t, string(output), "clientcredentials")
}
