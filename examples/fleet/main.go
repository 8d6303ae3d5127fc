// Fleet shows what a store is for: replicas of a service, each a process of its own,
// share tokens through a real Redis, and as many others don't. It starts them all at
// once, has them replace tokens while they call an API, revokes a token, kills the
// Redis and starts it again, and counts token requests.
//
//	go -C examples/fleet run .
//
// takes about 15 seconds, and redis-server in the PATH. All servers are its own, on the
// loopback interface. What to copy is in service.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"time"
)

const usage = `Usage: fleet [-replicas N]

Starts an authorization server, an API and a redis-server on the loopback interface,
and replicas of a service that call the API: N of them (2 to 50, by default 8) with a
store of tokens, and N without. It prints how many tokens they request. It needs
redis-server in the PATH: Redis 6.2 or later.

The exit status is 0 if what the output claims held, 2 if the arguments are wrong,
else 1. An interrupt ends everything that it has started, and so does its own end,
whatever that is.
`

const errNoRedis = `there is no redis-server in the PATH. Install Redis 6.2 or later:
  on Debian and Ubuntu:  sudo apt-get install redis-server
  on Fedora:             sudo dnf install redis
  with Homebrew:         brew install redis
It needn't run: fleet starts one of its own, on another port`

// roleVariable tells a process that this program has started what it is to be.
const (
	roleVariable = "CLIENTCREDENTIALS_FLEET_ROLE"
	replicaRole  = "replica"
	keeperRole   = "keeper" // of a redis-server
)

func main() {
	switch os.Getenv(roleVariable) {
	case replicaRole:
		beReplica()
		return
	case keeperRole:
		keepRedis(os.Args[1:])
		return
	}
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage) }
	replicas := flag.Int("replicas", 8, "")
	flag.Parse()
	if flag.NArg() > 0 || *replicas < 2 || *replicas > 50 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, plan{
		replicas: *replicas,
		calls:    300,
		lifetime: 3 * time.Second,
		latency:  200 * time.Millisecond,
		attempts: 6,
	}, os.Stdout)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan, out io.Writer) error {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return errors.New(errNoRedis)
	}
	server, err := startRedis(ctx, program)
	if err != nil {
		return err
	}
	defer server.kill()
	r := &report{out: out}
	if err := demonstrate(ctx, r, p, server); err != nil {
		return err
	}
	return r.result()
}
