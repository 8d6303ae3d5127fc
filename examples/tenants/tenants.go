package main

import (
	"container/list"
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/seed-5bfa0880/clientcredentials"
)

// Tenants has an HTTP client for each tenant. The requests of a client carry the token
// of that tenant and no other. Only the most recently used clients are kept, because
// there may be more tenants than you want to keep tokens for.
//
// All methods are safe for concurrent use.
type Tenants struct {
	ctx    context.Context // of all clients: it ends with the service
	lookup func(ctx context.Context, tenant string) (*clientcredentials.Config, error)
	most   int // clients that are kept

	mu     sync.Mutex // protects what follows; not held while lookup runs
	kept   map[string]*list.Element
	recent *list.List // of *tenantClient; the most recently used is in front
}

type tenantClient struct {
	tenant string
	client *http.Client
}

// NewTenants returns Tenants that keep up to most clients. lookup returns the Config of a
// tenant. It is called when the tenant's client isn't kept.
func NewTenants(ctx context.Context, most int, lookup func(context.Context, string) (*clientcredentials.Config, error)) *Tenants {
	return &Tenants{ctx: ctx, lookup: lookup, most: max(most, 1), kept: map[string]*list.Element{}, recent: list.New()}
}

// Client returns the tenant's client. Take the name of the tenant from something that the
// caller has proved, such as a verified token, and never from an unverified claim.
//
// A client needs no closing. One that is no longer kept still works for callers that have
// it, and costs neither a goroutine nor a timer. If the tenant comes back, it gets a new
// client with a new token.
func (t *Tenants) Client(ctx context.Context, tenant string) (*http.Client, error) {
	if client := t.use(tenant); client != nil {
		return client, nil
	}
	conf, err := t.lookup(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("looking up tenant %q: %w", tenant, err)
	}
	return t.keep(tenant, conf.Client(t.ctx)), nil // Not ctx: it ends with this call, and the client is kept.
}

// Forget drops a tenant's client: the tenant is gone, or has new credentials.
func (t *Tenants) Forget(tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.kept[tenant]; e != nil {
		t.removeLocked(e)
	}
}

// Len returns how many clients are kept.
func (t *Tenants) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.recent.Len()
}

// use returns the tenant's client if it is kept.
func (t *Tenants) use(tenant string) *http.Client {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.kept[tenant]
	if e == nil {
		return nil
	}
	t.recent.MoveToFront(e)
	return e.Value.(*tenantClient).client
}

// keep keeps client and returns it. If another call was faster, it returns that call's
// client: two clients would request two tokens.
func (t *Tenants) keep(tenant string, client *http.Client) *http.Client {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.kept[tenant]; e != nil {
		t.recent.MoveToFront(e)
		return e.Value.(*tenantClient).client
	}
	t.kept[tenant] = t.recent.PushFront(&tenantClient{tenant, client})
	if t.recent.Len() > t.most {
		t.removeLocked(t.recent.Back())
	}
	return client
}

// removeLocked drops a client. t.mu must be held.
func (t *Tenants) removeLocked(e *list.Element) {
	delete(t.kept, t.recent.Remove(e).(*tenantClient).tenant)
}
