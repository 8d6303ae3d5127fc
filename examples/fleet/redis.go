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

// keepRedis is the main function of a process that runs a redis-server in a directory
// of its own, and ends it together with its standard input: so it doesn't outlive the
// demonstration, however that ends.
func keepRedis(command []string) {
	signal.Ignore(os.Interrupt) // At a terminal, it is for all processes.
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
	_ = server.Run() // It has said why, and nobody else can do anything about it.
}

// A redisServer is a redis-server that this program has started.
type redisServer struct {
	program string
	port    int
	process *process // its keeper; nil: it was killed
}

// startRedis starts a redis-server at a port that is free. It is below where systems
// take the ports of outgoing connections from, so that a server that is started again
// finds its port as it left it.
func startRedis(ctx context.Context, program string) (*redisServer, error) {
	for attempt := 1; ; attempt++ {
		s := &redisServer{program: program, port: 20_000 + rand.IntN(10_000)} //nolint:gosec // Any will do.
		err := s.start(ctx)
		if err == nil || ctx.Err() != nil || attempt == 10 {
			return s, err
		}
	}
}

func (s *redisServer) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start starts s, also again after kill, unless it runs, and waits until it is ready.
// What it had in memory is gone.
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
		for lines := bufio.NewScanner(p.stdout); lines.Scan(); { // To its end: the server must not wait for a reader.
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

// kill ends s with SIGKILL, if it hasn't ended.
func (s *redisServer) kill() {
	if s.process != nil {
		s.process.end()
		s.process = nil
	}
}
