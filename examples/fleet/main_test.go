//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
)

const programRole = "program"

// TestMain makes the test binary the program and its other processes, as roleVariable says.
func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func requireRedis(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CLIENTCREDENTIALS_REQUIRE_SERVERS") == "1" {
			t.Fatal(errNoRedis)
		}
		t.Skip(errNoRedis)
	}
}

// A program is this program, started the way a user starts it.
type program struct {
	cmd    *exec.Cmd
	dir    string        // for temporary files
	lines  *bufio.Reader // its standard output
	stderr *os.File      // its standard error, and that of the processes it has started
}

func start(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	output, stdout, err := os.Pipe()
	require.NoError(t, err)
	defer stdout.Close()
	complaints, stderr, err := os.Pipe()
	require.NoError(t, err)
	defer stderr.Close()
	p := &program{cmd: exec.Command(self, args...), dir: t.TempDir(), lines: bufio.NewReader(output), stderr: complaints}
	p.cmd.Env = append(append(os.Environ(), roleVariable+"="+programRole, "TMPDIR="+p.dir), env...)
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		output.Close()
		complaints.Close()
	})
	return p
}

// await reads the standard output up to a line with this prefix.
func (p *program) await(t *testing.T, prefix string) {
	t.Helper()
	var seen strings.Builder
	for {
		line, err := p.lines.ReadString('\n')
		seen.WriteString(line)
		require.NoError(t, err, "%s", &seen)
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
}

// end waits for the end of p, and checks that p leaves nothing behind: no process, which
// would keep the standard error open, and no file.
func (p *program) end(t *testing.T) (status int, stdout, stderr string) {
	t.Helper()
	out, err := io.ReadAll(p.lines)
	require.NoError(t, err)
	require.NoError(t, p.stderr.SetReadDeadline(time.Now().Add(2*patience)))
	text, err := io.ReadAll(p.stderr)
	require.NoError(t, err, "a process is left; standard error so far: %s", text)
	_ = p.cmd.Wait()
	left, err := os.ReadDir(p.dir)
	require.NoError(t, err)
	require.Empty(t, left)
	return p.cmd.ProcessState.ExitCode(), string(out), string(text)
}

func TestProgram(t *testing.T) {
	t.Parallel()
	requireRedis(t)
	status, stdout, stderr := start(t, nil, "-replicas", "3").end(t)
	require.Zero(t, status, stdout+stderr)
	require.Empty(t, stderr)
	for _, want := range []string{
		"Two fleets of 3 replicas",
		"without a store: 3 token requests; ",
		"with the store:  1 token request; ",
		"with the store:  the API refused 1 call of one replica; 1 token request\n",
		"refused 2 calls of the others; 0 token requests: ",
		passed(t, 15),
	} {
		require.Contains(t, stdout, want)
	}
	reporttest.RequireNoSecret(t, stdout, clientSecret)
}

// passed returns the last line of a program whose checks have all passed.
func passed(t *testing.T, checks int) string {
	t.Helper()
	var out strings.Builder
	r := report.New(&out)
	for range checks {
		r.Check(true, "")
	}
	out.Reset()
	require.NoError(t, r.Result())
	return out.String()
}

// However the program ends, it leaves nothing behind.
func TestEnd(t *testing.T) {
	t.Parallel()
	requireRedis(t)
	for name, test := range map[string]struct {
		signal func(pid int) error
		status int
		stderr string
	}{
		"interrupt": {func(pid int) error { return syscall.Kill(pid, syscall.SIGINT) }, 1, "fleet: interrupted\n"},
		// A terminal sends the signal to all processes.
		"interrupt of all": {func(pid int) error { return syscall.Kill(-pid, syscall.SIGINT) }, 1, "fleet: interrupted\n"},
		"kill":             {func(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, nil, "-replicas", "2")
			p.await(t, "   time   API calls")
			require.NoError(t, test.signal(p.cmd.Process.Pid))
			status, stdout, stderr := p.end(t)
			require.Equal(t, test.status, status, stdout)
			require.Equal(t, test.stderr, stderr)
			require.NotContains(t, stdout, passed(t, 15))
		})
	}
}

func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := start(t, []string{"PATH="}).end(t)
	require.Equal(t, 1, status)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "fleet: there is no redis-server in the PATH. Install Redis 6.2 or later:\n")
}

// Without a Redis the replicas share nothing, and the program says so.
func TestFailedClaim(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := report.New(&out)
	d := &demo{plan{replicas: 3, calls: 300}, new(redisServer)}
	require.NoError(t, step(t.Context(), r, 2, d.coldStart))
	require.Regexp(t, `^   The machine is too busy to show this: [0-9]+ calls of Redis failed, or took longer than 250ms. Trying again.
   ok     without a store: 3 token requests; the longest wait was .*
   FAILED with the store:  3 token requests; the longest wait was .*
   ok     6 API calls, 0 failed
   The machine may be to blame: [0-9]+ calls of Redis failed, or took longer than 250ms.
$`, out.String())
	require.ErrorContains(t, r.Result(), "1 of 3 ")
}

// A step is repeated only if it failed and the machine may be to blame.
func TestStep(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		holds    bool
		figures  figures
		attempts int
	}{
		"passed":                      {true, figures{}, 1},
		"passed on a busy machine":    {true, figures{Hindered: time.Second}, 1},
		"failed":                      {false, figures{Hindered: tolerance}, 1},
		"failed on a busy machine":    {false, figures{Hindered: 2 * tolerance}, 3},
		"failed because of the store": {false, figures{StoreFailures: 1}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			r := report.New(&out)
			attempts := 0
			require.NoError(t, step(t.Context(), r, 3, func(_ context.Context, a *attempt) error {
				attempts++
				a.blame(figures{}, test.figures)
				a.claim(test.holds, "claim")
				return nil
			}))
			require.Equal(t, test.attempts, attempts)
			require.Equal(t, 1, strings.Count(out.String(), " claim\n"))
			require.Equal(t, !test.holds, strings.Contains(out.String(), "FAILED claim\n"))
			require.Equal(t, test.holds, r.Result() == nil)
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args   []string
		status int
	}{
		{[]string{"-h"}, 0},
		{[]string{"argument"}, 2},
		{[]string{"-replicas", "1"}, 2},
		{[]string{"-replicas", "51"}, 2},
		{[]string{"-replicas", "many"}, 2},
	} {
		status, stdout, stderr := start(t, nil, test.args...).end(t)
		require.Equal(t, test.status, status, test.args)
		require.Empty(t, stdout)
		require.Contains(t, stderr, usage)
	}
}
