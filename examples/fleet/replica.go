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
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// What a replica is told to do.
const (
	callOnce    = "call"
	startCalls  = "start calls"
	stopCalls   = "stop calls"
	onlyFigures = "figures"
)

// beReplica is the main function of a replica. It reads JSON: what it is, then what to
// do. When it has done so it writes a line of JSON, its figures since the one before.
// It ends with its standard input, and that ends with the process that has started it.
func beReplica() {
	signal.Ignore(os.Interrupt) // At a terminal, it is for all processes.
	logging.Disable()           // It would log that the Redis is gone, which is intended.
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
		defer cancel() // A call that is under way ends, too.
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
	now figures
}

// figures is what happened to one replica, or to several.
type figures struct {
	Calls, Failed         int
	Error                 string        // of the last call that failed
	LongestWait           time.Duration // of a call, for a token
	FromServer, FromStore int           // new tokens
	StoreFailures         int           // calls of the store that failed, or took too long
	Hindered              time.Duration // the longest that it wanted to run, and couldn't
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

// take returns the figures since it was called last.
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

// callAgainAndAgain calls the API while running lasts. A call that has begun is to end.
func (r *replica) callAgainAndAgain(ctx, running context.Context) {
	for running.Err() == nil {
		r.call(ctx)
		_ = sleep(running, r.spec.Pause)
	}
}

// notice finds out how long this process has to wait for the machine.
func (r *replica) notice(running context.Context) {
	for {
		late, err := nap(running)
		if err != nil {
			return
		}
		r.count(figures{Hindered: late})
	}
}

// nap sleeps for a moment, and returns for how much longer than that.
func nap(ctx context.Context) (late time.Duration, err error) {
	const pause = 10 * time.Millisecond
	start := time.Now()
	err = sleep(ctx, pause)
	return time.Since(start) - pause, err
}

// sleep returns after d, or when ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
