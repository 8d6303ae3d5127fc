package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const (
	upstreamPath = `"golang.org/x/oauth2/clientcredentials"`
	ourPath      = `"github.com/seed-5bfa0880/clientcredentials"`
)

var marked = regexp.MustCompile("(?s)<!-- run by TestMigrationCommand -->\n```sh\n(.*?)```")

// TestMigrationCommand runs the commands of migration.md, there and back, in a module
// of its own, with this package in its working tree for the released one.
func TestMigrationCommand(t *testing.T) {
	for _, program := range []string{"bash", "perl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	document, err := os.ReadFile("migration.md")
	require.NoError(t, err)
	commands := marked.FindAllSubmatch(document, -1)
	require.Len(t, commands, 2)
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	goMod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	goSum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)

	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	const program = `package main

import (
	"context"
	"fmt"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func main() {
	conf := clientcredentials.Config{ClientID: "id", AuthStyle: oauth2.AuthStyleInHeader}
	_, err := conf.TokenSource(context.Background()).Token()
	fmt.Println(err)
}
`
	version := regexp.MustCompile(`golang\.org/x/oauth2 v\S+`).FindString(string(goMod))
	write("main.go", program)
	write("internal/api/api.go", strings.Replace(program, "package main", "package api", 1))
	write("go.mod", "module example.com/program\n\ngo 1.25.0\n\nrequire "+version+
		"\nrequire github.com/seed-5bfa0880/clientcredentials v0.0.0\nreplace github.com/seed-5bfa0880/clientcredentials => "+root+"\n")
	write("go.sum", string(goSum))
	run := func(command string) string {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", command, out)
		return string(out)
	}
	imports := func(path string) {
		t.Helper()
		for _, name := range []string{"main.go", "internal/api/api.go"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, path == ourPath, strings.Contains(string(text), ourPath), name)
			require.Equal(t, path == upstreamPath, strings.Contains(string(text), upstreamPath), name)
		}
	}
	run(string(commands[0][1]))
	imports(ourPath)
	require.Contains(t, run("go vet ./... && go run ."), "TokenURL is empty")
	run(string(commands[1][1]))
	imports(upstreamPath)
	require.Contains(t, run("go vet ./... && go run ."), "unsupported protocol scheme")
}
