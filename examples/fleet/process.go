package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"time"
)

// patience is for what takes a moment.
const patience = 30 * time.Second

// A process is this program once more, in another role. It ends with its standard
// input.
type process struct {
	stdin  io.WriteCloser
	stdout io.Reader
	cmd    *exec.Cmd
	cancel context.CancelFunc
}

// startProcess starts a process. It ends at the latest when ctx is done.
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
		p.cmd.Cancel = p.stdin.Close // A keeper that is killed leaves its server behind.
		p.cmd.WaitDelay = patience   // Then it is killed all the same.
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

// end ends the process, and waits for that.
func (p *process) end() {
	p.cancel()
	_ = p.cmd.Wait()
}
