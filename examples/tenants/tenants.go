package main

import (
	"container/list"
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/seed-5bfa0880/clientcredentials"
)

// Tenants has an HTTP client for each tenant, whose requests carry that tenant's
// token and no other. It keeps those that were used last: there may be more tenants
// than anybody wants to hold tokens of.
//
// All methods are safe for concurrent use.
type Tenants struct {
	ctx    context.Context // of all clients; with it ends the service
	lookup func(ctx context.Context, tenant string) (*clientcredentials.Config, error)
	most   int // clients that are kept

	mu     sync.Mutex // protects what follows; not held while lookup runs
	kept   map[string]*list.Element
	recent *list.List // of *tenantClient; the one that was used last is in front
}

type tenantClient struct {
	tenant string
	client *http.Client
}

// NewTenants returns Tenants that keep that many clients. lookup returns what is
// registered for a tenant, and is called when its client isn't kept.
func NewTenants(ctx context.Context, most int, lookup func(context.Context, string) (*clientcredentials.Config, error)) *Tenants {
	return &Tenants{ctx: ctx, lookup: lookup, most: max(most, 1), kept: map[string]*list.Element{}, recent: list.New()}
}

// Client returns the tenant's client. The name must come from what the caller has
// proved, such as a verified token, and never from what it merely says.
//
// There is nothing to close: a client that is no longer kept goes on for those who
// have it, and costs neither a goroutine nor a timer. Should the tenant be wanted
// again, it gets another client, and that another token.
func (t *Tenants) Client(ctx context.Context, tenant string) (*http.Client, error) {
	if client := t.use(tenant); client != nil {
		return client, nil
	}
	conf, err := t.lookup(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("looking up tenant %q: %w", tenant, err)
	}
	return t.keep(tenant, conf.Client(t.ctx)), nil // Not ctx: that of one call would end the tenant's tokens.
}

// Forget drops a tenant's client: it is gone, or has other credentials.
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

// keep keeps client, unless there is one by now: two would request two tokens.
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

// removeLocked requires that t.mu is held.
func (t *Tenants) removeLocked(e *list.Element) {
	delete(t.kept, t.recent.Remove(e).(*tenantClient).tenant)
}
