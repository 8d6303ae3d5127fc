package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A fleet has replicas, and an authorization server and an API of its own.
type fleet struct {
	server   *clientcredentialstest.Server
	replicas []*worker

	seenCalls, seenRequests int // by delta

	mu    sync.Mutex        // protects inUse and seen
	inUse map[string]string // by replica: the token of its last API call
	seen  map[string]bool   // the tokens of all API calls
}

// A worker is a replica, as seen from the main process.
type worker struct {
	*process
	name string
	in   *json.Encoder
	out  *json.Decoder
}

// startFleet starts the replicas. Their tokens live for lifetime. The replicas share them
// through the Redis at redisAddr, or not at all if that is empty. Call close when finished.
func startFleet(ctx context.Context, p plan, lifetime time.Duration, redisAddr string) (*fleet, error) {
	f := &fleet{
		server: clientcredentialstest.NewServer(clientcredentialstest.Client{ID: clientID, Secret: clientSecret}),
		inUse:  make(map[string]string),
		seen:   make(map[string]bool),
	}
	f.server.Auth.Latency = p.latency
	f.server.Auth.TokenLifetime = lifetime
	f.server.API.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		token := r.Header.Get("Authorization")
		f.inUse[r.URL.Path] = token
		f.seen[token] = true
	})
	key := make([]byte, 32)
	_, _ = rand.Read(key) // Never fails.
	for i := range p.replicas {
		name := strconv.Itoa(i + 1)
		process, err := startProcess(ctx, replicaRole)
		if err != nil {
			f.close()
			return nil, err
		}
		w := &worker{process, name, json.NewEncoder(process.stdin), json.NewDecoder(process.stdout)}
		f.replicas = append(f.replicas, w)
		_ = w.in.Encode(spec{ // If the replica has ended, receive reports it.
			TokenURL:     f.server.TokenURL,
			APIURL:       f.server.APIURL + name,
			EarlyRefresh: lifetime / 2,
			Pause:        time.Duration(p.replicas) * time.Second / time.Duration(p.calls),
			RedisAddr:    redisAddr,
			SealingKey:   key,
		})
	}
	if _, err := f.do(ctx, onlyFigures); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *fleet) close() {
	var ends sync.WaitGroup
	for _, w := range f.replicas {
		ends.Go(w.end)
	}
	ends.Wait()
	f.server.Close()
}

// tokensSeen returns how many different tokens the API was called with.
func (f *fleet) tokensSeen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

// tokensInUse returns how many different tokens the replicas use.
func (f *fleet) tokensInUse() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	tokens := make(map[string]bool)
	for _, token := range f.inUse {
		tokens[token] = true
	}
	return len(tokens)
}

func (f *fleet) tokenRequests() int { return f.server.Auth.TokenRequests() }

// delta returns how many API calls and token requests there were since its last call.
func (f *fleet) delta() (calls, requests int) {
	calls, requests = f.server.API.Accepted()-f.seenCalls, f.tokenRequests()-f.seenRequests
	f.seenCalls += calls
	f.seenRequests += requests
	return calls, requests
}

// do has all replicas do something. See the function do.
func (f *fleet) do(ctx context.Context, command string) (figures, error) {
	return do(ctx, command, f.replicas)
}

// do has replicas do something, all at the same time, and returns their figures since the
// last time.
func do(ctx context.Context, command string, replicas []*worker) (figures, error) {
	send(command, replicas)
	return receive(ctx, replicas)
}

func send(command string, replicas []*worker) {
	for _, w := range replicas {
		_ = w.in.Encode(command) // If the replica has ended, receive reports it.
	}
}

func receive(ctx context.Context, replicas []*worker) (figures, error) {
	var sum figures
	for _, w := range replicas {
		var f figures
		if err := w.out.Decode(&f); err != nil {
			if ctx.Err() != nil {
				return sum, ctx.Err()
			}
			return sum, fmt.Errorf("replica %s has ended: %w", w.name, err)
		}
		sum.add(f)
	}
	return sum, nil
}

// A pair is two fleets of the same size, one without a store and one with it.
type pair struct{ without, with *fleet }

func startPair(ctx context.Context, p plan, lifetime time.Duration, redisAddr string) (*pair, error) {
	without, err := startFleet(ctx, p, lifetime, "")
	if err != nil {
		return nil, err
	}
	with, err := startFleet(ctx, p, lifetime, redisAddr)
	if err != nil {
		without.close()
		return nil, err
	}
	return &pair{without, with}, nil
}

func (p *pair) close() {
	p.without.close()
	p.with.close()
}

// do has the replicas of both fleets do something, all at the same time.
func (p *pair) do(ctx context.Context, command string) (without, with figures, err error) {
	send(command, p.without.replicas)
	send(command, p.with.replicas)
	if without, err = receive(ctx, p.without.replicas); err != nil {
		return without, with, err
	}
	with, err = receive(ctx, p.with.replicas)
	return without, with, err
}
