package redisstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const (
	// workerVariable is set in the environment of a process that is to be a worker.
	workerVariable = "CLIENTCREDENTIALS_TEST_WORKER"
	// replyPrefix distinguishes replies from what the race detector prints.
	replyPrefix = "reply: "
)

// A command tells a worker what to do.
type command struct {
	Start *spec // makes the replica
	Get   int   // how many callers ask for a token
	Quit  bool
}

type reply struct {
	Results []result // of Get
	Seen    observed // so far
	Err     string
}

// work is the main function of a worker. It reads commands from its standard input, one
// a line, and answers each when it has done it. It ends with its standard input.
func work() {
	var r *replica
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		var answer reply
		if err := c.run(&r, &answer); err != nil {
			answer.Err = err.Error()
		}
		if r != nil {
			answer.Seen = r.observed()
		}
		text, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s%s\n", replyPrefix, text)
	}
}

func (c command) run(r **replica, answer *reply) (err error) {
	if *r != nil && (c.Start != nil || c.Quit) {
		(*r).close()
	}
	switch {
	case c.Start != nil:
		if *r, err = newReplica(*c.Start); err != nil {
			return err
		}
		return (*r).client.Ping(context.Background()).Err()
	case c.Get > 0:
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		answer.Results = getAll(ctx, c.Get, *r)
	case c.Quit:
		return goleak.Find()
	}
	return nil
}

// A worker is a replica in a process of its own, as the test sees it. The process runs
// this test binary.
type worker struct {
	*process
	replies chan reply // in the order of the commands
	seen    observed   // as of the last reply
}

// startWorker starts a worker in FIPS 140-only mode, in which SHA-1 panics.
func startWorker(t testing.TB) *worker {
	t.Helper()
	w := &worker{replies: make(chan reply, 100)}
	w.process = start(t, []string{workerVariable + "=1", "GODEBUG=fips140=only"}, func(line string) {
		var r reply
		if _, text, ok := strings.Cut(line, replyPrefix); ok && json.Unmarshal([]byte(text), &r) == nil {
			w.replies <- r
		}
	}, os.Args[0])
	return w
}

func (w *worker) send(t testing.TB, c command) {
	t.Helper()
	text, err := json.Marshal(c)
	require.NoError(t, err)
	_, err = w.stdin.Write(append(text, '\n'))
	require.NoError(t, err)
}

// receive waits for the reply to the oldest command that has none yet.
func (w *worker) receive(t testing.TB) reply {
	t.Helper()
	select {
	case r := <-w.replies:
		require.Empty(t, r.Err)
		w.seen = r.Seen
		return r
	case <-time.After(2 * patience):
		require.FailNow(t, "a worker doesn't answer", w.output())
		return reply{}
	}
}

// get has n callers ask for a token. receive returns what they got.
func (w *worker) get(t testing.TB, n int) {
	t.Helper()
	w.send(t, command{Get: n})
}

// awaitSeen waits until ok returns true for what the worker's Observer was told. An
// Observer that gets no processor is told later than the caller gets its token.
func (w *worker) awaitSeen(t testing.TB, ok func(observed) bool, what string) {
	t.Helper()
	eventually(t, func() bool {
		w.send(t, command{})
		return ok(w.receive(t).Seen)
	}, what)
}

// quit checks that the worker leaves no goroutine behind, and that the race detector has
// found nothing in it.
func (w *worker) quit(t testing.TB) {
	t.Helper()
	w.send(t, command{Quit: true})
	w.receive(t)
	w.kill()
	require.NotContains(t, w.output(), "DATA RACE")
}
