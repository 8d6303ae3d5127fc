package redisstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// A worker is a replica in a process of its own: this program, told by workerVariable
// to be one. It reads commands from its standard input, one a line, and answers each
// when it is done.
const (
	workerVariable = "CLIENTCREDENTIALS_TEST_WORKER"
	replyPrefix    = "reply: " // before what isn't the race detector's
)

type command struct {
	ID      int
	Start   *spec         // makes the replica
	Get     int           // as many callers ask for a token
	Timeout time.Duration // of Get
	Quit    bool
}

type reply struct {
	ID      int
	Results []result
	Seen    observed // so far
	Err     string
}

// work is the main function of a worker. It ends with its standard input.
func work() {
	var (
		mu       sync.Mutex // for the standard output
		commands sync.WaitGroup
		r        *replica
	)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		answer := func(reply reply) {
			reply.ID = c.ID
			if r != nil {
				reply.Seen = r.observed()
			}
			text, err := json.Marshal(reply)
			if err != nil {
				panic(err)
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Printf("%s%s\n", replyPrefix, text)
		}
		switch {
		case c.Start != nil:
			if r != nil {
				r.close()
			}
			c.Start.Redis = redis.UniversalOptions{Addrs: c.Start.Addrs, ContextTimeoutEnabled: true}
			var err error
			if r, err = newReplica(*c.Start); err == nil {
				err = r.client.Ping(context.Background()).Err()
			}
			if err != nil {
				answer(reply{Err: err.Error()})
				continue
			}
			answer(reply{})
		case c.Get > 0:
			commands.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
				defer cancel()
				answer(reply{Results: getAll(ctx, c.Get, r)})
			})
		case c.Quit:
			commands.Wait()
			if r != nil {
				r.close()
			}
			if err := goleak.Find(); err != nil {
				answer(reply{Err: err.Error()})
				continue
			}
			answer(reply{})
		default:
			answer(reply{}) // What it has seen.
		}
	}
}

// A worker is such a process as the test sees it.
type worker struct {
	*process

	mu      sync.Mutex // protects all below, and writing to the process
	next    int
	replies map[int]chan reply
}

func startWorker(t *testing.T, env ...string) *worker {
	t.Helper()
	w := &worker{replies: make(map[int]chan reply)}
	w.process = start(t, append(env, workerVariable+"=1"), func(line string) {
		_, text, ok := strings.Cut(line, replyPrefix)
		var r reply
		if !ok || json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.replies[r.ID] <- r
		delete(w.replies, r.ID)
	}, os.Args[0])
	return w
}

// send sends a command, whose reply comes from the channel.
func (w *worker) send(t *testing.T, c command) <-chan reply {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	c.ID = w.next
	answer := make(chan reply, 1)
	w.replies[c.ID] = answer
	text, err := json.Marshal(c)
	require.NoError(t, err)
	_, err = w.stdin.Write(append(text, '\n'))
	require.NoError(t, err)
	return answer
}

// receive waits for a reply.
func (w *worker) receive(t *testing.T, answer <-chan reply) reply {
	t.Helper()
	select {
	case r := <-answer:
		require.Empty(t, r.Err)
		return r
	case <-time.After(2 * patience):
		require.FailNow(t, "a worker doesn't answer", w.output())
		return reply{}
	}
}

func (w *worker) do(t *testing.T, c command) reply {
	t.Helper()
	return w.receive(t, w.send(t, c))
}

// get has n callers ask for a token.
func (w *worker) get(t *testing.T, n int) <-chan reply {
	t.Helper()
	return w.send(t, command{Get: n, Timeout: patience})
}

func (w *worker) observed(t *testing.T) observed {
	t.Helper()
	return w.do(t, command{}).Seen
}

// quit checks that the worker leaves no goroutine behind, nor a complaint of the race
// detector.
func (w *worker) quit(t *testing.T) {
	t.Helper()
	w.do(t, command{Quit: true})
	w.kill()
	require.NotContains(t, w.output(), "DATA RACE")
}
