package storetest

import (
	"context"
	"crypto/fips140"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// TestRun runs by the clock of the machine, as an adapter's test does.
func TestRun(t *testing.T) {
	var store Store
	if os.Getenv("STORETEST_UNAVAILABLE") != "" { // set by TestRunFails
		fault := Unavailable()
		store.SetFault(&fault)
		Run(t, func(*testing.T) tokenstore.Store { return &store })
		return
	}
	Run(t, func(*testing.T) tokenstore.Store { return store.Connect() })
}

// TestRunFails: what fails in a check fails in a subtest with the name of the rule.
func TestRunFails(t *testing.T) {
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestRun$")
	cmd.Env = append(os.Environ(), "STORETEST_UNAVAILABLE=1")
	output, err := cmd.CombinedOutput()
	require.Error(t, err)
	for _, r := range rules {
		require.Contains(t, string(output), "--- FAIL: TestRun/"+strings.ReplaceAll(r.name, " ", "_")+" (")
	}
	require.Contains(t, string(output), "connection refused")
}

// A recorder is the reporter of a check that may fail.
type recorder struct {
	mu     sync.Mutex
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) FailNow() { runtime.Goexit() }

// clients are three clients of a store.
type clients [3]tokenstore.Store

// same returns three clients that are one.
func same(s tokenstore.Store) clients { return clients{s, s, s} }

// mutantWith returns the clients of a mutant with this mistake.
func mutantWith(mistake mistake) clients {
	m := &mutant{memory: make(map[string]string), around: func(e *entry, c *call) { c.right(e) }}
	mistake(m)
	return same(m)
}

// failures returns what the suite says about a store, by rule.
func failures(t *testing.T, newClients func() clients) map[string][]string {
	failed := make(map[string][]string)
	testkit.Bubble(t, func(t *testing.T) {
		recorders := make([]recorder, len(rules))
		stores := newClients()
		var wg sync.WaitGroup
		for i, r := range rules {
			wg.Go(func() { r.check(newCheck(&recorders[i], t.Context(), stores)) })
		}
		wg.Wait()
		time.Sleep(2 * time.Hour) // for calls that hang
		for i, r := range rules {
			if errs := recorders[i].errors; errs != nil {
				failed[r.name] = errs
			}
		}
	})
	return failed
}

// TestRunRejects shows that the suite finds every mistake, and that every rule finds at
// least one.
func TestRunRejects(t *testing.T) {
	if fips140.Enabled() {
		t.Skip("testkit.Synctest skips the mutants")
	}
	broken := map[string]func() clients{
		"each client has a store of its own": func() clients { return clients{new(Store), new(Store), new(Store)} },
		"unavailable": func() clients {
			store, fault := new(Store), Unavailable()
			store.SetFault(&fault)
			return same(store)
		},
	}
	for name, mistake := range mistakes {
		broken[name] = func() clients { return mutantWith(mistake) }
	}
	useful := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(broken)) {
		t.Run(name, func(t *testing.T) {
			failed := failures(t, broken[name])
			require.NotEmpty(t, failed, "the suite accepts it")
			for _, rule := range slices.Sorted(maps.Keys(failed)) {
				useful[rule] = true
				t.Logf("%s: %.200s", rule, failed[rule][0])
			}
		})
	}
	for _, r := range rules {
		if !useful[r.name] {
			t.Errorf("%s: no mutant breaks that rule", r.name)
		}
	}
}

// TestRunAccepts shows that the suite demands no more than the contract. What these mutants
// do is allowed.
func TestRunAccepts(t *testing.T) {
	for name, mutation := range map[string]mistake{
		"no mistake": func(*mutant) {},
		"exact TTL": after("acquire", always, func(e *entry, c *call) {
			until := map[tokenstore.ClaimState]time.Time{hit: e.recordUntil, cooling: e.cooldownUntil, waiting: e.leaseUntil, lead: e.leaseUntil}
			c.claim.TTL = until[c.claim.State].Sub(c.now)
		}),
		"lifetimes in milliseconds, no less than one": before("", func(_ *entry, c *call) bool { return c.operation != "abort" || c.d > 0 }, func(_ *entry, c *call) {
			c.d = max(c.d.Truncate(time.Millisecond), time.Millisecond)
		}),
		"slow": func(m *mutant) {
			m.before = func(context.Context) { time.Sleep(700 * time.Millisecond) }
		},
		"carried out after the end of the context": func(m *mutant) { m.late = true },
		"more in a claim than its state needs": answers(func(c *tokenstore.Claim) {
			if c.State != hit {
				c.Record = tokenstore.Record{Version: "x", Data: []byte("x")}
			}
			if c.State != waiting {
				c.Owner = "x"
			}
			if c.State != cooling {
				c.Note = []byte("x")
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, failures(t, func() clients { return mutantWith(mutation) }))
		})
	}
}
