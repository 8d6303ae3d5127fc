package workload

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
)

const (
	// commandTimeout is how long a command may run. Programs that ask a cloud take seconds.
	commandTimeout = time.Minute

	// outputDelay is how long a command's output stays open after its end. Something that it
	// has started may hold it.
	outputDelay = time.Second
)

// errTooMuchOutput stops a command.
var errTooMuchOutput = errors.New("it writes more than 64 KiB; check that it is the right command")

// Command returns a source that runs a program and returns what it writes to its standard
// output, without the line break at the end. A JWT is kept until it is about to expire.
// For anything else, the program runs for each attempt at a token.
//
// The program is run as it is, without a shell. It has the environment of this process, and
// an empty standard input. It may run for a minute. But a token request waits for it no longer
// than Retry.AttemptTimeout of its Config, 10 seconds by default, and only a second if it can
// use the JWT that is kept. In that case the program goes on to run by itself, for the rest of
// its minute. Otherwise it is killed when nobody waits for it any more. On Unix all processes
// that it has started are killed with it.
//
// If the program fails, the error has its exit status. Standard error is discarded, because
// it may contain secrets. Arguments aren't shown either.
func Command(name string, args ...string) clientauth.SecretSource {
	c := &cache{platform: "the command " + name, limit: commandTimeout, fetch: func(ctx context.Context) (string, error) {
		return run(ctx, name, args)
	}}
	return c.get
}

func run(ctx context.Context, name string, args []string) (string, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	output := &output{full: func() { stop(errTooMuchOutput) }}
	command := exec.CommandContext(ctx, name, args...) //nolint:gosec // The program has configured it.
	command.Stdout = output
	command.WaitDelay = outputDelay
	killTogether(command)
	err := command.Run()
	switch {
	case context.Cause(ctx) != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay):
		_ = command.Cancel() // The program has ended, but not what it has started.
		return "", fmt.Errorf("it has ended, but something that it has started keeps its output open: %w", err)
	case err != nil:
		return "", fmt.Errorf("it failed, and what it wrote to standard error is not shown; run it by hand: %w", err)
	}
	token, err := keyfile.ValueOf("secret").Parse(output.kept)
	if err != nil {
		return "", fmt.Errorf("what it wrote cannot be used: %w", err)
	}
	return token, nil
}

// An output keeps what a command writes, until it is too much. It has no ReadFrom, which
// io.Copy would call instead of Write.
type output struct {
	kept []byte
	full func()
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if len(o.kept)+len(p) > maxAnswer {
		o.full()
		return 0, errTooMuchOutput
	}
	o.kept = append(o.kept, p...)
	return len(p), nil
}
