// Cctoken gets OAuth 2.0 access tokens with the client credentials grant, and finds
// out what is wrong when there are none.
//
//	go install github.com/seed-5bfa0880/clientcredentials/cmd/cctoken@latest
//
// cctoken help says what it can do; docs/cctoken.md shows it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endingSignals()...)
	context.AfterFunc(ctx, stop) // A second signal ends the program at once.
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// endingSignals are those that end the program. A shell starts what runs in the
// background with the interrupt ignored: it is meant for another program then.
func endingSignals() []os.Signal {
	signals := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) {
		signals = append(signals, os.Interrupt)
	}
	return signals
}

// A command is one of cctoken's. Its result goes to out, and nothing else does.
type command struct {
	name string
	run  func(ctx context.Context, c *call) error
}

var commands = []command{
	{"token", printToken},
	{"inspect", inspect},
	{"doctor", doctor},
	{"serve", serve},
	{"version", printVersion},
}

// A call is one call of a command.
type call struct {
	name    string
	args    []string
	flags   *flag.FlagSet
	invalid string // what is wrong with the value of a flag
	env     func(string) string
	in      io.Reader
	out     *output
	stderr  io.Writer
}

// run runs the program, and returns its exit status.
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
	fmt.Fprintf(stderr, "%s: %s\n", name, oneLine(explain(err)))
	return statusOf(err)
}

// dispatch runs the command that args name.
func dispatch(ctx context.Context, args []string, c *call) (name string, err error) {
	if len(args) == 0 {
		return "cctoken", usagef("there is no command; see cctoken help")
	}
	word, rest := args[0], args[1:]
	switch word {
	case "help", "-h", "-help", "--help":
		return "cctoken help", help(c.out, rest)
	case "-version", "--version":
		word = "version"
	}
	for _, cmd := range commands {
		if cmd.name != word {
			continue
		}
		c.begin(word, rest)
		err := cmd.run(ctx, c)
		if errors.Is(err, errHelp) {
			err = help(c.out, []string{word})
		}
		return "cctoken " + word, err
	}
	return "cctoken", usagef("the first argument is no command; see cctoken help")
}

func printVersion(_ context.Context, c *call) error {
	if err := c.parse(); err != nil {
		return err
	}
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	fmt.Fprintf(c.out, "cctoken %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// An output is standard output. It remembers the first error, after which nothing
// is written.
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

// Close closes what is written to, if it can be closed, so that a reader sees the end.
// It returns the first error of all.
func (o *output) Close() error {
	if closer, ok := o.w.(io.Closer); ok && o.err == nil {
		o.err = closer.Close()
	}
	return o.err
}

// oneLine returns text in one line, and without what could rewrite a terminal.
func oneLine(text string) string {
	return neutralise(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
}
