package leakcheck

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// childVariable is an environment variable of the processes that TestMainExits starts:
// the name of the test that they run.
const childVariable = "LEAKCHECK_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		patience = 100 * time.Millisecond
	}
	Main(m)
}

// until signals that it is running, and then waits for done. The signal is needed because
// the stack of a goroutine that hasn't started yet looks different.
func until(running chan<- struct{}, done <-chan struct{}) {
	running <- struct{}{}
	<-done
}

func TestLeakIsFound(t *testing.T) {
	running, done := make(chan struct{}), make(chan struct{})
	go until(running, done)
	<-running
	start := time.Now()
	stacks := wait(100 * time.Millisecond)
	time.AfterFunc(100*time.Millisecond, func() { close(done) })
	require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond, "it gave up early")
	require.Len(t, stacks, 1)
	require.Contains(t, stacks[0], "leakcheck.until(")
	require.Contains(t, stacks[0], "leakcheck_test.go:")
	require.Empty(t, wait(patience), "the goroutine has ended")
}

func TestManyLeaksAreFound(t *testing.T) {
	const many = 1000 // more stacks than the first buffer holds
	running, done := make(chan struct{}), make(chan struct{})
	for range many {
		go until(running, done)
		<-running
	}
	n := len(wait(0))
	close(done)
	require.Equal(t, many, n)
	require.Empty(t, wait(patience))
}

func TestFinishedGoroutineIsNoLeak(t *testing.T) {
	done := make(chan struct{})
	go close(done)
	<-done
	require.Empty(t, wait(patience))
}

func TestExpectedGoroutineIsNoLeak(t *testing.T) {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	signal.Stop(interrupts)

	server := httptest.NewServer(http.NotFoundHandler())
	resp, err := http.Get(server.URL) // Leaves an idle connection.
	require.NoError(t, err)
	resp.Body.Close()
	// Not server.Close: that also closes the idle connections of the client.
	require.NoError(t, server.Config.Shutdown(t.Context()))
	require.Empty(t, wait(patience))
}

func TestMainExits(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		output string
	}{
		"TestChildLeaks":  {1, "leakcheck: goroutines left by the tests: 1\n\ngoroutine "},
		"TestChildFails":  {1, "--- FAIL: TestChildFails"},
		"TestChildPasses": {0, "PASS"},
	} {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$")
		child.Env = append(os.Environ(), childVariable+"="+name)
		output, _ := child.CombinedOutput()
		require.Equal(t, test.status, child.ProcessState.ExitCode(), "%s: %s", name, output)
		require.Contains(t, string(output), test.output, name)
		require.Equal(t, name == "TestChildLeaks", strings.Contains(string(output), "leakcheck.until("), "%s: %s", name, output)
	}
}

func TestChildLeaks(t *testing.T)  { inChild(t); go until(make(chan struct{}, 1), nil) }
func TestChildFails(t *testing.T)  { inChild(t); go until(make(chan struct{}, 1), nil); t.Fail() }
func TestChildPasses(t *testing.T) { inChild(t) }

func inChild(t *testing.T) {
	if os.Getenv(childVariable) != t.Name() {
		t.Skip("runs in the processes that TestMainExits starts")
	}
}
