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

// A spec says how to make a replica. A worker gets it as JSON.
type spec struct {
	Redis     redis.UniversalOptions `json:"-"`
	Addrs     []string               // the same as Redis.Addrs, for workers
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

// A replica is one instance of a service. It has a Redis client of its own, which it shares
// only with its siblings.
type replica struct {
	spec   spec
	client redis.UniversalClient
	store  *clientcredentials.SharedStore
	source *clientcredentials.Source
	stop   context.CancelFunc // cancels the context of source

	mu   sync.Mutex // protects seen
	seen observed
}

// observed is what a replica's Observer has been told of the store.
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
	n := 0
	for _, op := range o {
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
	Token  string
	Left   time.Duration // until the token expires; 0: it never does
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
	// A request gets a connection of its own, which ends with it.
	transport := &http.Transport{DisableKeepAlives: true}
	conf := &clientcredentials.Config{
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
				r.seen = append(r.seen, op)
			},
		},
	}
	if r.spec.configure != nil {
		r.spec.configure(conf)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.source, r.stop = conf.Source(ctx), stop
}

func (r *replica) close() {
	r.stop()
	_ = r.client.Close()
}

func (r *replica) observed() observed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
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

// requireOneToken checks that all callers got the same token, and returns it.
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
