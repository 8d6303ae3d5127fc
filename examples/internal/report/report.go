// Package report is the output of the programs in examples: what they do, and whether
// their claims hold.
package report

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"
)

// Main is the main function of a program without arguments. It calls run with standard
// output and a context that ends on an interrupt. The exit status is 0 if run returns
// nil, 2 if there are arguments, else 1.
func Main(name, usage string, run func(context.Context, io.Writer) error) {
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage) }
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// A Report prints what happens, and counts the checks that failed. It must not be used
// concurrently.
type Report struct {
	out            io.Writer
	checks, failed int
}

// New returns a Report that writes to out.
func New(out io.Writer) *Report { return &Report{out: out} }

// Say prints a line.
func (r *Report) Say(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
}

// Check prints a claim and whether it holds.
func (r *Report) Check(holds bool, format string, args ...any) {
	mark := "ok    "
	if !holds {
		mark = "FAILED"
		r.failed++
	}
	r.checks++
	r.Say("   "+mark+" "+format, args...)
}

// Result prints that all checks passed, or returns an error.
func (r *Report) Result() error {
	if r.failed > 0 {
		return fmt.Errorf("%d of %d checks failed: see FAILED above", r.failed, r.checks)
	}
	r.Say("\nAll %d checks passed.", r.checks)
	return nil
}

// Round rounds d to a readable precision.
func Round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Microsecond)
}

// Because returns err as a suffix for the text of a claim: empty if err is nil.
func Because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// Get calls an API and returns the body of the answer. It knows nothing about tokens.
func Get(ctx context.Context, client *http.Client, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the API answered %s", resp.Status)
	}
	return string(body), err
}

// Sleep returns after d, or with an error when ctx is done.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Until waits until condition is true, but no longer than limit.
func Until(ctx context.Context, limit time.Duration, condition func() bool) error {
	for deadline := time.Now().Add(limit); !condition(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v", limit)
		}
		if err := Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Load calls do about fifty times a second until stop is called. stop returns the last
// error of do. It may be called more than once.
func Load(ctx context.Context, do func() error) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		wg     sync.WaitGroup
		failed error
	)
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := do(); err != nil {
				failed = err
			}
			_ = Sleep(ctx, 20*time.Millisecond)
		}
	})
	return func() error {
		cancel()
		wg.Wait()
		return failed
	}
}
