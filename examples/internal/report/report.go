// Package report is how the programs in examples tell what they do, and whether it
// was as they claim.
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

// Main is the whole of a program without arguments: it runs run, with standard
// output and a context that ends with an interrupt. The exit status is 0 if that
// returns no error, 2 if there are arguments, else 1.
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

// A Report tells what happens, and keeps in mind whether it was as claimed. It is
// for one goroutine.
type Report struct {
	out            io.Writer
	checks, failed int
}

// New returns a Report that writes to out.
func New(out io.Writer) *Report { return &Report{out: out} }

// Say tells something.
func (r *Report) Say(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
}

// Check tells a claim, and whether it held.
func (r *Report) Check(held bool, format string, args ...any) {
	mark := "ok    "
	if !held {
		mark = "FAILED"
		r.failed++
	}
	r.checks++
	r.Say("   "+mark+" "+format, args...)
}

// Result is an error if a claim didn't hold.
func (r *Report) Result() error {
	if r.failed > 0 {
		return fmt.Errorf("%d of %d claims didn't hold: see FAILED above", r.failed, r.checks)
	}
	r.Say("\nAll of it held (%d of %d checks).", r.checks, r.checks)
	return nil
}

// Round leaves of d what is worth reading.
func Round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Microsecond)
}

// Because returns what to print after a claim that err belongs to, if there is one.
func Because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// Get calls an API, and returns what it answers. There is nothing about tokens in it.
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

// Sleep returns after d, or when ctx is done.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Until waits until condition holds, for no longer than limit.
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

// Load calls do, some fifty times a second, until the function that it returns is
// called, which returns the last error, and may be called twice.
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
