// Cctoken gets OAuth 2.0 access tokens with the client credentials grant, and finds
// out why a server doesn't issue one.
//
//	go install github.com/seed-5bfa0880/clientcredentials/cmd/cctoken@latest
//
// Run cctoken help for its commands, or read docs/cctoken.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endingSignals()...)
	context.AfterFunc(ctx, stop) // A second signal ends the program at once.
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// endingSignals returns the signals that end the program. A shell starts background
// commands with the interrupt ignored, because it is meant for the foreground command.
func endingSignals() []os.Signal {
	signals := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) {
		signals = append(signals, os.Interrupt)
	}
	return signals
}

// commands are the commands by name. A command writes its result, and nothing else, to
// call.out.
var commands = map[string]func(ctx context.Context, c *call) error{
	"token":           printToken,
	"exec-credential": printCredential,
	"inspect":         inspect,
	"doctor":          doctor,
	"serve":           serve,
	"key":             makeKey,
	"version":         printVersion,
}

// A call is one invocation of a command.
type call struct {
	name    string
	args    []string
	flags   *flag.FlagSet
	invalid string // what is wrong with the value of a flag; empty: nothing
	env     func(string) string
	in      io.Reader
	out     *output
	stderr  io.Writer
}

// run runs the program and returns its exit status.
func run(ctx context.Context, args []string, env func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{w: stdout}
	name, err := dispatch(ctx, args, &call{env: env, in: stdin, out: out, stderr: stderr})
	if out.err != nil {
		err = &failure{statusOutput, fmt.Errorf("the result can't be written: %w", out.err)}
	}
	if err == nil {
		return statusOK
	}
	if ctx.Err() != nil {
		err = &failure{statusInterrupted, errors.New("interrupted")}
	}
	fmt.Fprintf(stderr, "%s: %s\n", name, redact.OneLine(err.Error()))
	return statusOf(err)
}

// dispatch runs the command that args name.
func dispatch(ctx context.Context, args []string, c *call) (name string, err error) {
	if len(args) == 0 {
		return "cctoken", usagef("no command was given; see cctoken help")
	}
	word, rest := args[0], args[1:]
	switch word {
	case "help", "-h", "-help", "--help":
		return "cctoken help", help(c.out, rest)
	case "-version", "--version":
		word = "version"
	}
	command, ok := commands[word]
	if !ok {
		return "cctoken", usagef("the first argument isn't a command; see cctoken help")
	}
	c.begin(word, rest)
	if err = command(ctx, c); errors.Is(err, errHelp) {
		err = help(c.out, args[:1])
	}
	return "cctoken " + word, err
}

func printVersion(_ context.Context, c *call) error {
	if err := c.parse(); err != nil {
		return err
	}
	fmt.Fprintln(c.out, clientsettings.Version("cctoken"))
	return nil
}

// An output is standard output. It remembers the first error, and writes nothing after
// it.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err == nil {
		_, o.err = o.w.Write(p)
	}
	return len(p), nil
}

// Close closes the underlying writer if it can be closed, so that its reader sees the
// end. It returns the first error of the output.
func (o *output) Close() error {
	if closer, ok := o.w.(io.Closer); ok && o.err == nil {
		o.err = closer.Close()
	}
	return o.err
}
