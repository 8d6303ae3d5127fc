package redisstore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
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

// A spec is what a replica is made of. It goes to workers as JSON.
type spec struct {
	Redis     redis.UniversalOptions `json:"-"`
	Addrs     []string               // of Redis.Addrs, for workers
	Keys      [][]byte               // of the Keyring; none: plaintext
	TokenURL  string
	ID        string
	Secret    string
	Scopes    []string
	Params    url.Values
	Early     time.Duration
	Retry     clientcredentials.RetryPolicy
	configure func(*clientcredentials.Config)
}

// A replica is one instance of a service. It has a Redis client of its own, unless it
// is a sibling.
type replica struct {
	spec   spec
	client redis.UniversalClient
	store  *clientcredentials.SharedStore
	conf   *clientcredentials.Config
	source *clientcredentials.Source
	stop   context.CancelFunc // ends the context that the source was made with

	mu   sync.Mutex // protects seen
	seen observed
}

// observed is what a replica's Observer was told.
type observed struct {
	Operations []operation
}

type operation struct {
	Name  string
	State string
	Err   string
	Lost  bool // ErrLeaseLost
	Slow  bool // it took too long, or nearly
}

// count returns how many operations there were for which f is true.
func (o observed) count(f func(operation) bool) int {
	n := 0
	for _, op := range o.Operations {
		if f(op) {
			n++
		}
	}
	return n
}

func (o observed) slow() bool {
	return o.count(func(op operation) bool { return op.Slow }) > 0
}

func (o observed) claims(state tokenstore.ClaimState) int {
	return o.count(func(op operation) bool { return op.State == state.String() })
}

// succeeded returns how often an operation has.
func (o observed) succeeded(name string) int {
	return o.count(func(op operation) bool { return op.Name == name && op.Err == "" })
}

// lost returns how often a record was refused because the lease was lost.
func (o observed) lost() int {
	return o.count(func(op operation) bool { return op.Name == "publish" && op.Lost })
}

// A result is what a caller got.
type result struct {
	Token  string
	Left   time.Duration // until the expiry; 0: it doesn't
	Waited time.Duration
	Err    string
}

func newReplica(s spec) (*replica, error) {
	r := &replica{spec: s, client: redis.NewUniversalClient(&s.Redis)}
	store := &redisstore.Store{Client: r.client}
	if s.Keys == nil {
		r.store = clientcredentials.DangerouslyShareInPlaintext(store)
	} else {
		keyring, err := clientcredentials.NewKeyring(s.Keys...)
		if err != nil {
			return nil, errors.Join(err, r.client.Close())
		}
		r.store = redisstore.New(r.client, keyring)
	}
	r.connect()
	return r, nil
}

// sibling returns another replica, which shares r's Redis client and SharedStore.
func (r *replica) sibling() *replica {
	sibling := &replica{spec: r.spec, client: r.client, store: r.store}
	sibling.connect()
	return sibling
}

// withSiblings returns r and n siblings of it.
func (r *replica) withSiblings(n int) []*replica {
	replicas := []*replica{r}
	for range n {
		replicas = append(replicas, r.sibling())
	}
	return replicas
}

func (r *replica) connect() {
	// No connection outlives its request, and that of a process that is frozen is
	// nobody else's.
	transport := &http.Transport{DisableKeepAlives: true}
	r.conf = &clientcredentials.Config{
		ClientID:       r.spec.ID,
		ClientSecret:   r.spec.Secret,
		TokenURL:       r.spec.TokenURL,
		Scopes:         r.spec.Scopes,
		EndpointParams: r.spec.Params,
		AuthStyle:      oauth2.AuthStyleInHeader,
		HTTPClient:     &http.Client{Transport: transport},
		EarlyRefresh:   r.spec.Early,
		Retry:          r.spec.Retry,
		Store:          r.store,
		Observer: &clientcredentials.Observer{
			StoreOperation: func(info event.StoreOperation) {
				op := operation{Name: string(info.Operation), Slow: info.Duration > 200*time.Millisecond}
				if info.State != 0 {
					op.State = info.State.String()
				}
				if info.Err != nil {
					op.Err = info.Err.Error()
					op.Lost = errors.Is(info.Err, tokenstore.ErrLeaseLost)
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				r.seen.Operations = append(r.seen.Operations, op)
			},
		},
	}
	if r.spec.configure != nil {
		r.spec.configure(r.conf)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.source = r.conf.Source(ctx)
}

func (r *replica) close() {
	r.stop()
	_ = r.client.Close()
}

func (r *replica) observed() observed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return observed{slices.Clone(r.seen.Operations)}
}

// get has one caller ask for a token.
func (r *replica) get(ctx context.Context) result {
	start := time.Now()
	token, err := r.source.TokenContext(ctx)
	got := result{Waited: time.Since(start)}
	if err != nil {
		got.Err = err.Error()
		return got
	}
	got.Token = token.AccessToken
	if !token.Expiry.IsZero() {
		got.Left = time.Until(token.Expiry)
	}
	return got
}

// getAll has n callers of each replica ask for a token at a time.
func getAll(ctx context.Context, n int, replicas ...*replica) []result {
	var callers sync.WaitGroup
	results := make([]result, n*len(replicas))
	for i := range results {
		callers.Go(func() { results[i] = replicas[i/n].get(ctx) })
	}
	callers.Wait()
	return results
}

// requireTokens checks that all callers got tokens, and returns those without
// repetition.
func requireTokens(t *testing.T, results ...result) []string {
	t.Helper()
	var tokens []string
	for _, result := range results {
		require.Empty(t, result.Err)
		tokens = append(tokens, result.Token)
	}
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// requireOneToken checks that all callers got the same, and returns that.
func requireOneToken(t *testing.T, results ...result) string {
	t.Helper()
	tokens := requireTokens(t, results...)
	require.Len(t, tokens, 1, "different tokens")
	return tokens[0]
}

// newSigner returns a key for DPoP.
func newSigner(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}
