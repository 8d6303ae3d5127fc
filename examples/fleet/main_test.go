//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const programRole = "program"

// TestMain has the test binary play the program, and what that starts.
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

// A program is this one, started as a user does.
type program struct {
	cmd    *exec.Cmd
	dir    string        // for temporary files
	lines  *bufio.Reader // its standard output
	stderr *os.File      // its standard error, and that of all that it has started
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

// await reads the standard output to the line that begins so.
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

// end waits for the end, and checks that nothing is left: no process, which would keep
// the standard error open, and no file.
func (p *program) end(t *testing.T) (status int, stdout, stderr string) {
	t.Helper()
	out, err := io.ReadAll(p.lines)
	require.NoError(t, err)
	require.NoError(t, p.stderr.SetReadDeadline(time.Now().Add(2*patience)))
	text, err := io.ReadAll(p.stderr)
	require.NoError(t, err, "a process is left; so far: %s", text)
	_ = p.cmd.Wait()
	left, err := os.ReadDir(p.dir)
	require.NoError(t, err)
	require.Empty(t, left)
	return p.cmd.ProcessState.ExitCode(), string(out), string(text)
}

// Tokens of the fake server look like this.
var tokenPattern = regexp.MustCompile(`[A-Z2-7]{26}`)

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
		"All of it held (15 of 15 checks).",
	} {
		require.Contains(t, stdout, want)
	}
	require.NotContains(t, stdout, clientSecret)
	require.NotRegexp(t, tokenPattern, stdout)
}

// However it is ended, nothing is left of it.
func TestEnd(t *testing.T) {
	t.Parallel()
	requireRedis(t)
	for name, test := range map[string]struct {
		signal func(pid int) error
		status int
		stderr string
	}{
		"interrupt": {func(pid int) error { return syscall.Kill(pid, syscall.SIGINT) }, 1, "fleet: interrupted\n"},
		// A terminal sends it to all processes.
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
			require.NotContains(t, stdout, "All of it held")
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

// Without a Redis nothing is shared, and the program says so.
func TestFailedClaim(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &report{out: &out}
	d := &demo{plan{replicas: 3, calls: 300}, new(redisServer)}
	require.NoError(t, r.step(t.Context(), 2, d.coldStart))
	require.Regexp(t, `^   The machine is too busy to show this: [0-9]+ calls of Redis failed, or took longer than 250ms. Once more.
   ok     without a store: 3 token requests; the longest wait was .*
   FAILED with the store:  3 token requests; the longest wait was .*
   ok     6 API calls, 0 failed
   The machine may be to blame: [0-9]+ calls of Redis failed, or took longer than 250ms.
$`, out.String())
	require.EqualError(t, r.result(), "1 of 3 claims didn't hold: see FAILED above")
}

// A step is repeated only if it failed and the machine may be to blame for it.
func TestStep(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		held     bool
		figures  figures
		attempts int
		failed   int
	}{
		"held":                      {true, figures{}, 1, 0},
		"held in spite of it":       {true, figures{Hindered: time.Second}, 1, 0},
		"failed":                    {false, figures{Hindered: tolerance}, 1, 1},
		"failed for want of time":   {false, figures{Hindered: 2 * tolerance}, 3, 1},
		"failed for a store's sake": {false, figures{StoreFailures: 1}, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &report{out: io.Discard}
			attempts := 0
			require.NoError(t, r.step(t.Context(), 3, func(_ context.Context, a *attempt) error {
				attempts++
				a.blame(figures{}, test.figures)
				a.claim(test.held, "claim")
				return nil
			}))
			require.Equal(t, test.attempts, attempts)
			require.Equal(t, 1, r.checks)
			require.Equal(t, test.failed, r.failed)
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
