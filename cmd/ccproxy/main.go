// Ccproxy is a proxy for programs in any language: it adds OAuth 2.0 access tokens to their
// requests, which it gets with the client credentials grant.
//
// Run ccproxy -h for its flags, or read docs/ccproxy.md.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

//go:embed help.txt
var helpText string

// The exit statuses, which help.txt documents.
const (
	statusOK        = 0
	statusUsage     = 2 // flags, settings, files
	statusTemporary = 3 // an address is taken, or an authorization server doesn't answer
)

func main() {
	logging.Disable() // go-redis would log what the store's observer reports.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // A second signal ends the program at once.
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// flags are the flags of a call.
type flags struct {
	config         string
	listenOn       []string // with -dangerously-listen-on
	drain, watch   time.Duration
	maxRequests    int
	check, version bool
	verbose        bool
}

// run runs the program until ctx ends, and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, err := parseFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, helpText)
		return statusOK
	case err == nil && f.version:
		fmt.Fprintln(stdout, clientsettings.Version("ccproxy"))
		return statusOK
	case err == nil:
		err = serve(ctx, f, stdout, stderr)
	}
	if err == nil || ctx.Err() != nil && !f.check { // A signal also ends what goes on before it listens.
		return statusOK
	}
	fmt.Fprintf(stderr, "ccproxy: %s\n", redact.OneLine(err.Error()))
	if isTemporary(err) {
		return statusTemporary
	}
	return statusUsage
}

// A temporary error may pass by itself.
type temporary struct{ error }

func (t *temporary) Unwrap() error { return t.error }

func isTemporary(err error) bool { return errors.As(err, new(*temporary)) }

// answered returns err, which is of a request to an authorization server, as a temporary error
// if it is one.
func answered(err error) error {
	if clientcredentials.IsTemporary(err) {
		return &temporary{err}
	}
	return err
}

func parseFlags(args []string) (f flags, err error) {
	set := flag.NewFlagSet("ccproxy", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.config, "config", "", "")
	set.Func("dangerously-listen-on", "", func(address string) error {
		f.listenOn = append(f.listenOn, address)
		return nil
	})
	set.DurationVar(&f.drain, "drain", 10*time.Second, "")
	set.DurationVar(&f.watch, "watch", 5*time.Second, "")
	set.IntVar(&f.maxRequests, "max-requests", 10_000, "")
	set.BoolVar(&f.check, "check", false, "")
	set.BoolVar(&f.version, "version", false, "")
	set.BoolVar(&f.verbose, "v", false, "")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return f, err
	case err != nil:
		return f, errors.New("the flags can't be parsed; see ccproxy -h") // err quotes values.
	case set.NArg() > 0:
		return f, errors.New("there is an argument that isn't a flag; see ccproxy -h")
	case f.config == "" && !f.version:
		return f, errors.New("there are no settings; name a file with -config, and see ccproxy -h")
	case f.drain < 0, f.watch < 0, f.maxRequests < 1:
		return f, errors.New("-drain and -watch must not be negative, and -max-requests must be at least 1")
	}
	return f, nil
}

// newLogger returns a logger for events.
func newLogger(out io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
}
