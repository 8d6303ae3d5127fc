package redisstore_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/redisstore"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A spec says how to make a replica. A worker gets it as JSON.
type spec struct {
	Addr     string   // of Redis
	Keys     [][]byte // of the Keyring; none: plaintext
	TokenURL string
	dial     func(ctx context.Context, network, addr string) (net.Conn, error) // nil: without changes
}

// A replica is one instance of a service.
type replica struct {
	*connection
	source *clientcredentials.Source
	stop   context.CancelFunc // cancels the context of source
}

// A connection is what a replica shares only with its siblings.
type connection struct {
	spec   spec
	client *redis.Client
	store  *clientcredentials.SharedStore

	mu   sync.Mutex // protects seen
	seen observed
}

// observed is what the Observer was told of the store.
type observed []operation

type operation struct {
	Name  string
	State string // of a claim
	Err   string
	Lost  bool // whether Err is ErrLeaseLost
	Slow  bool // whether it took longer than a store may, or nearly
}

// count returns how many operations there were for which f is true.
func (o observed) count(f func(operation) bool) int {
	return len(slices.DeleteFunc(slices.Clone(o), func(op operation) bool { return !f(op) }))
}

func (o observed) slow() bool { return o.count(func(op operation) bool { return op.Slow }) > 0 }

// waits returns how often the store said that another replica leads.
func (o observed) waits() int {
	return o.count(func(op operation) bool { return op.State == tokenstore.ClaimWait.String() })
}

// succeeded returns how often the named operation has succeeded.
func (o observed) succeeded(name string) int {
	return o.count(func(op operation) bool { return op.Name == name && op.Err == "" })
}

// lost returns how often the store refused a record because the lease was lost.
func (o observed) lost() int {
	return o.count(func(op operation) bool { return op.Name == "publish" && op.Lost })
}

// A result is what a caller got.
type result struct {
	Token string
	Left  time.Duration // until the token expires; 0: it never does
	Err   string
}

func newReplica(s spec, changes ...func(*clientcredentials.Config)) (*replica, error) {
	c := &connection{spec: s, client: redis.NewClient(&redis.Options{
		Addr: s.Addr, Dialer: s.dial, ContextTimeoutEnabled: true,
	})}
	if s.Keys == nil {
		c.store = clientcredentials.DangerouslyShareInPlaintext(&redisstore.Store{Client: c.client})
	} else {
		keyring, err := clientcredentials.NewKeyring(s.Keys...)
		if err != nil {
			return nil, errors.Join(err, c.client.Close())
		}
		c.store = redisstore.New(c.client, keyring)
	}
	return c.sibling(changes...), nil
}

// sibling returns another replica that uses the same connection and SharedStore.
func (c *connection) sibling(changes ...func(*clientcredentials.Config)) *replica {
	conf := &clientcredentials.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		TokenURL:     c.spec.TokenURL,
		AuthStyle:    oauth2.AuthStyleInHeader,
		// A request gets a connection of its own, which ends with it.
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		// Long enough that no attempt ends by itself.
		Retry:    clientcredentials.RetryPolicy{AttemptTimeout: 2 * patience, TotalTimeout: 4 * patience},
		Store:    c.store,
		Observer: &clientcredentials.Observer{StoreOperation: c.observe},
	}
	for _, change := range changes {
		change(conf)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &replica{connection: c, source: conf.Source(ctx), stop: stop}
}

func (c *connection) observe(info event.StoreOperation) {
	op := operation{Name: string(info.Operation), Slow: info.Duration > 200*time.Millisecond}
	if info.State != 0 {
		op.State = info.State.String()
	}
	if info.Err != nil {
		op.Err = info.Err.Error()
		op.Lost = errors.Is(info.Err, tokenstore.ErrLeaseLost)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, op)
}

func (c *connection) observed() observed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

func (r *replica) close() {
	r.stop()
	_ = r.client.Close()
}

// get has one caller ask for a token.
func (r *replica) get(ctx context.Context) result {
	token, err := r.source.TokenContext(ctx)
	if err != nil {
		return result{Err: err.Error()}
	}
	got := result{Token: token.AccessToken}
	if !token.Expiry.IsZero() {
		got.Left = time.Until(token.Expiry)
	}
	return got
}

// getAll has n callers of each replica ask for a token, all at once.
func getAll(ctx context.Context, n int, replicas ...*replica) []result {
	var callers sync.WaitGroup
	results := make([]result, n*len(replicas))
	for i := range results {
		callers.Go(func() { results[i] = replicas[i/n].get(ctx) })
	}
	callers.Wait()
	return results
}

// requireTokens checks that all callers got tokens, and returns the different ones.
func requireTokens(t testing.TB, results ...result) []string {
	t.Helper()
	var tokens []string
	for _, result := range results {
		require.Empty(t, result.Err)
		tokens = append(tokens, result.Token)
	}
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// requireOneToken checks that all callers got the same token, and returns it.
func requireOneToken(t testing.TB, results ...result) string {
	t.Helper()
	tokens := requireTokens(t, results...)
	require.Len(t, tokens, 1, "different tokens")
	return tokens[0]
}
