package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

// keepRedis is the main function of a keeper: a process that runs a redis-server in a
// directory of its own. The keeper ends the server when its own standard input ends. So
// the server doesn't outlive the demonstration, even if that is killed.
func keepRedis(command []string) {
	signal.Ignore(os.Interrupt) // A terminal sends it to all processes.
	dir, err := os.MkdirTemp("", "fleet-redis-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	server := exec.CommandContext(ctx, command[0], append(command[1:], "--dir", dir)...) //nolint:gosec // The redis-server of the PATH.
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	_ = server.Run() // The server itself has printed the reason of a failure.
}

// A redisServer is a redis-server that this program has started.
type redisServer struct {
	program string
	port    int
	process *process // its keeper; nil: it was killed
}

// startRedis starts a redis-server at a free port. The port is below those that systems use
// for outgoing connections, so that it is still free when the server is started again.
func startRedis(ctx context.Context, program string) (*redisServer, error) {
	for attempt := 1; ; attempt++ {
		s := &redisServer{program: program, port: 20_000 + rand.IntN(10_000)} //nolint:gosec // It needs no secrecy.
		err := s.start(ctx)
		if err == nil || ctx.Err() != nil || attempt == 10 {
			return s, err
		}
	}
}

func (s *redisServer) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start starts s unless it runs already, and waits until it is ready. It starts s again
// after kill. What the server had in memory is lost.
func (s *redisServer) start(ctx context.Context) error {
	if s.process != nil {
		return nil
	}
	p, err := startProcess(ctx, keeperRole,
		s.program, "--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	if err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		var said []string
		for lines := bufio.NewScanner(p.stdout); lines.Scan(); { // Read all of it, so that the server never waits for a reader.
			if said = append(said, lines.Text()); strings.Contains(lines.Text(), "Ready to accept connections") {
				ready <- nil
				_, _ = io.Copy(io.Discard, p.stdout)
				return
			}
		}
		ready <- errors.New("redis-server doesn't start; it said:\n" + strings.Join(said, "\n"))
	}()
	select {
	case err = <-ready:
	case <-time.After(patience):
		err = fmt.Errorf("redis-server isn't ready after %v", patience)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.end()
		return err
	}
	s.process = p
	return nil
}

// kill ends s with SIGKILL if it hasn't ended yet.
func (s *redisServer) kill() {
	if s.process != nil {
		s.process.end()
		s.process = nil
	}
}
