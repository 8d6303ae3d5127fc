package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// The commands to a replica.
const (
	callOnce    = "call"
	startCalls  = "start calls"
	stopCalls   = "stop calls"
	onlyFigures = "figures"
)

// beReplica is the main function of a replica. It reads JSON from its standard input: a
// spec, then commands. After each command it writes a line of JSON: its figures since the
// line before. It ends when its standard input does, and so no later than the process that
// has started it.
func beReplica() {
	signal.Ignore(os.Interrupt) // A terminal sends it to all processes.
	logging.Disable()           // go-redis would log that Redis is down, which is intended.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var r replica
	if err := in.Decode(&r.spec); err != nil {
		return
	}
	var err error
	if r.client, err = newClient(ctx, r.spec, r.observer()); err != nil {
		fmt.Fprintln(os.Stderr, "fleet: a replica:", err)
		os.Exit(1)
	}
	commands := make(chan string)
	go func() {
		defer close(commands)
		defer cancel() // Ends a call that is under way, too.
		for {
			var command string
			if in.Decode(&command) != nil {
				return
			}
			commands <- command
		}
	}()
	var (
		stop    context.CancelFunc = func() {}
		callers sync.WaitGroup
	)
	for command := range commands {
		switch command {
		case callOnce:
			r.call(ctx)
		case startCalls:
			var running context.Context
			running, stop = context.WithCancel(ctx)
			callers.Go(func() { r.callAgainAndAgain(ctx, running) })
			callers.Go(func() { r.notice(running) })
		case stopCalls:
			stop()
			callers.Wait()
		}
		if out.Encode(r.take()) != nil {
			break
		}
	}
	stop()
}

// A replica is an instance of the service.
type replica struct {
	spec   spec
	client *http.Client

	mu  sync.Mutex // protects now
	now figures    // since take was called last
}

// figures are what happened to one replica, or to several.
type figures struct {
	Calls, Failed         int
	Error                 string        // of the last call that failed
	LongestWait           time.Duration // of a call, for a token
	FromServer, FromStore int           // new tokens
	StoreFailures         int           // calls of the store that failed, or took too long
	Hindered              time.Duration // the longest that a process had to wait for the machine
}

func (f *figures) add(other figures) {
	f.Calls += other.Calls
	f.Failed += other.Failed
	if other.Error != "" {
		f.Error = other.Error
	}
	f.LongestWait = max(f.LongestWait, other.LongestWait)
	f.FromServer += other.FromServer
	f.FromStore += other.FromStore
	f.StoreFailures += other.StoreFailures
	f.Hindered = max(f.Hindered, other.Hindered)
}

func sum(all ...figures) (total figures) {
	for _, f := range all {
		total.add(f)
	}
	return total
}

func (r *replica) count(f figures) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.add(f)
}

// take returns the figures since its last call.
func (r *replica) take() figures {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.now
	r.now = figures{}
	return f
}

func (r *replica) observer() *clientcredentials.Observer {
	return &clientcredentials.Observer{
		TokenServed: func(info event.TokenServed) {
			r.count(figures{LongestWait: info.Waited})
		},
		RefreshDone: func(info event.RefreshDone) {
			if info.From == event.FromStore {
				r.count(figures{FromStore: 1})
			} else {
				r.count(figures{FromServer: 1})
			}
		},
		StoreOperation: func(info event.StoreOperation) {
			if info.Err != nil && !errors.Is(info.Err, tokenstore.ErrLeaseLost) {
				r.count(figures{StoreFailures: 1})
			}
		},
	}
}

func (r *replica) call(ctx context.Context) {
	f := figures{Calls: 1}
	if err := call(ctx, r.client, r.spec.APIURL); err != nil {
		f.Failed, f.Error = 1, err.Error()
	}
	r.count(f)
}

// callAgainAndAgain calls the API until running is done. A call that has begun goes on.
func (r *replica) callAgainAndAgain(ctx, running context.Context) {
	for running.Err() == nil {
		r.call(ctx)
		_ = report.Sleep(running, r.spec.Pause)
	}
}

// notice measures how long this process has to wait for the machine.
func (r *replica) notice(running context.Context) {
	for {
		late, err := nap(running)
		if err != nil {
			return
		}
		r.count(figures{Hindered: late})
	}
}

// nap sleeps for a moment, and returns how much longer than that it took.
func nap(ctx context.Context) (late time.Duration, err error) {
	const pause = 10 * time.Millisecond
	start := time.Now()
	err = report.Sleep(ctx, pause)
	return time.Since(start) - pause, err
}
