// Fleet shows what a store is good for. It runs two fleets of replicas of a service. Each
// replica is a process of its own. The replicas of one fleet share tokens through a real
// Redis, and those of the other don't. Fleet counts token requests while it starts all
// replicas at once, lets them replace tokens while they call an API, revokes a token, and
// kills the Redis and starts it again.
//
//	go -C examples/fleet run .
//
// It takes about 15 seconds and needs redis-server in the PATH. It starts all servers
// itself, on the loopback interface. The code to copy is in service.go.
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

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: fleet [-replicas N]

Starts an authorization server, an API and a redis-server on the loopback interface,
and replicas of a service that call the API: N of them (2 to 50, by default 8) with a
store of tokens, and N without. It prints how many tokens they request. It needs
redis-server in the PATH: Redis 6.2 or later.

The exit status is 0 if all checks pass, 2 if the arguments are wrong, else 1. An
interrupt ends everything that it has started. So does its own end, even if it is
killed.
`

const errNoRedis = `there is no redis-server in the PATH. Install Redis 6.2 or later:
  on Debian and Ubuntu:  sudo apt-get install redis-server
  on Fedora:             sudo dnf install redis
  with Homebrew:         brew install redis
It needn't be running: fleet starts its own server, on another port`

// roleVariable is the environment variable that tells a process of this program its role.
const (
	roleVariable = "CLIENTCREDENTIALS_FLEET_ROLE"
	replicaRole  = "replica"
	keeperRole   = "keeper" // runs a redis-server
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
	r := report.New(out)
	if err := demonstrate(ctx, r, p, server); err != nil {
		return err
	}
	return r.Result()
}
