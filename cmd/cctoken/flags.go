package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

//go:embed help/*.txt
var helpTexts embed.FS

// errHelp is what parse returns for -h.
var errHelp = errors.New("the flag -h asks for help")

// help prints the help page of the command in args, or that of the program.
func help(out *output, args []string) error {
	name := "cctoken"
	switch {
	case len(args) > 1:
		return usagef("too many arguments; give one command")
	case len(args) == 1:
		name = args[0]
	}
	text, err := helpTexts.ReadFile("help/" + name + ".txt")
	if err != nil || len(args) == 1 && name == "cctoken" {
		return usagef("there is no such command; see cctoken help")
	}
	_, err = out.Write(text)
	return err
}

// begin makes c a call of the command with this name. The command adds its flags.
func (c *call) begin(name string, args []string) {
	c.name, c.args = name, args
	c.flags = flag.NewFlagSet(name, flag.ContinueOnError)
	c.flags.SetOutput(io.Discard) // parse reports errors itself.
	c.flags.Usage = func() {}
}

// flagWord is the name of a flag. Its value may follow without a separator.
var flagWord = regexp.MustCompile(`^--?[a-z_-]+`)

// flagName matches the errors of package flag that name a flag, if the name can't be a
// secret.
var flagName = regexp.MustCompile(`^flag (?:provided but not defined|needs an argument): (-[a-z-]{1,20})$`)

// parse parses c.args, and accepts flags only.
func (c *call) parse() error {
	if err := c.parseFlags(); err != nil {
		return err
	}
	if c.flags.NArg() > 0 {
		return usagef("there is an argument that isn't a flag; see cctoken %s -h", c.name)
	}
	return nil
}

// parseFlags parses the flags at the beginning of c.args.
func (c *call) parseFlags() error {
	err := c.flags.Parse(c.args)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp):
		return errHelp
	}
	for _, arg := range c.args {
		name := strings.TrimLeft(flagWord.FindString(arg), "-")
		if c.flags.Lookup(name) == nil && (redact.IsCredentialName(name) || strings.HasPrefix(name, "key")) {
			return usagef("no flag takes a secret, a key or a token, because every user of this machine can read the arguments of a program; set CLIENT_SECRET in the environment, or name a file with -secret-file, -key-file or -assertion-file")
		}
	}
	problem := "the flags can't be parsed"
	if match := flagName.FindStringSubmatch(err.Error()); match != nil {
		problem = "there is no flag " + match[1]
		if c.flags.Lookup(match[1][1:]) != nil {
			problem = "the flag " + match[1] + " needs a value"
		}
	} else if c.invalid != "" {
		problem = c.invalid
	}
	return usagef("%s; see cctoken %s -h", problem, c.name)
}

// errInvalid is the error for an invalid value of a flag. Package flag would quote the
// value; c.invalid doesn't.
var errInvalid = errors.New("invalid")

// addFlag adds a flag whose value set reads. If set returns false, the error asks for
// what is wanted.
func (c *call) addFlag(name, wanted string, set func(text string) bool) {
	c.flags.Func(name, "", func(text string) error {
		if !set(text) {
			c.invalid = fmt.Sprintf("-%s is not %s", name, wanted)
			return errInvalid
		}
		return nil
	})
}

// addDuration adds a flag for a duration that isn't negative.
func (c *call) addDuration(at *time.Duration, name string, value time.Duration) {
	*at = value
	c.addFlag(name, "a duration such as 30s or 2m", func(text string) bool {
		d, err := time.ParseDuration(text)
		*at = d
		return err == nil && d >= 0
	})
}

// addInt adds a flag for a number from least to most.
func (c *call) addInt(at *int, name string, value, least, most int) {
	*at = value
	c.addFlag(name, fmt.Sprintf("a number from %d to %d", least, most), func(text string) bool {
		n, err := strconv.Atoi(text)
		*at = n
		return err == nil && least <= n && n <= most
	})
}

// within returns a context that ends after -timeout.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc, error) {
	if timeout == 0 {
		return nil, nil, usagef("-timeout is 0; give it some time, such as 30s")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than -timeout %v: %w", timeout, context.DeadlineExceeded))
	return ctx, cancel, nil
}
