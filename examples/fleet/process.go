package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"time"
)

// patience bounds the wait for anything that should take only a moment.
const patience = 30 * time.Second

// A process is another process of this program, in another role. It ends when its standard
// input does.
type process struct {
	stdin  io.WriteCloser
	stdout io.Reader
	cmd    *exec.Cmd
	cancel context.CancelFunc
}

// startProcess starts a process, which ends no later than ctx.
func startProcess(ctx context.Context, role string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cmd: exec.CommandContext(ctx, self, args...), cancel: cancel} //nolint:gosec // It is this program.
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		p.cmd.Cancel = p.stdin.Close // Not Kill: a killed keeper leaves its server behind.
		p.cmd.WaitDelay = patience   // After that it is killed.
		if p.stdout, err = p.cmd.StdoutPipe(); err == nil {
			err = p.cmd.Start()
		}
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return p, nil
}

// end ends the process, and returns when it has ended.
func (p *process) end() {
	p.cancel()
	_ = p.cmd.Wait()
}
