package clientcredentials

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// This file is about the tokens that replicas share through Config.Store: what a
// flight does with it before and after its token request.

const (
	// leaseTime is how long a replica that has died while requesting a token keeps
	// the others waiting. One that is alive renews its lease every third of it, so
	// that it needn't be as long as a token request may take.
	leaseTime = 5 * time.Second

	// Who waits for another replica asks again after a quarter of the time it has
	// waited so far, within these limits: little of the wait is lost, and the
	// store isn't asked often when it gets long.
	minPoll = 25 * time.Millisecond
	maxPoll = time.Second

	// maxLeaders is how many replicas are waited for, one after the other. When they
	// all end without a token or a cooldown, waiting in line costs more than it saves.
	maxLeaders = 2

	// maxSharedCooldown is for how long the first refusal keeps the replicas away,
	// whatever its Retry-After: one of them may have earned it alone, by its address. A
	// second one is taken at its word.
	maxSharedCooldown = time.Minute

	// maxRecordBody is up to which size an answer of the authorization server is
	// shared. Larger tokens don't fit into a request header anyway.
	maxRecordBody = 48 << 10

	// maxRecordTTL bounds how long a record is kept: tokens may live for ever, and
	// those who use them may not.
	maxRecordTTL = 24 * time.Hour
)

// A sharing is what one flight does with Config.Store. As soon as the store fails it
// is done with that, and what remains is a token request like any other.
type sharing struct {
	request     *tokenRequest
	store       *SharedStore
	certificate *tls.Certificate // that tokens under key are bound to; nil: none
	key         string           // of the token in the store
	owner       string           // of the lease
	wanted      func() bool
	sending     func() // to be told that a token is requested now

	spent []string      // versions of records that won't do
	stale string        // the one among them that may be in the store; empty: none
	until time.Time     // when the token that the replica has expires; zero: it has none
	left  time.Duration // of storeBudget: it is for all calls that somebody waits for together

	refused   bool          // this replica, or one that it knows of, not long ago
	leaseWait time.Duration // for other replicas
}

// A sharedVersion says where a token is in a store.
type sharedVersion struct {
	store        *SharedStore
	key, version string
}

// obtain gets what f is to land with: from another replica, by way of the store, or
// from the server.
func (s *Source) obtain(ctx context.Context, f *flight) (*tokenResponse, error) {
	request := f.request
	if request.store == nil {
		return request.do(ctx, f.wanted.Load)
	}
	certificate, err := certificateOf(ctx, request.clientAuth)
	if err != nil {
		return request.do(ctx, f.wanted.Load) // Reports the same.
	}
	key, err := request.storeKey(certificate)
	if err != nil {
		return request.do(ctx, f.wanted.Load) // Here too.
	}
	sharing := &sharing{request: request, store: request.store, certificate: certificate, key: key, owner: rand.Text(), wanted: f.wanted.Load, sending: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		f.generation = s.generation
	}}
	response, err := s.share(ctx, f, sharing)
	if !errors.Is(err, tokenstore.ErrLeaseLost) {
		return response, err
	}
	// Lost to an invalidation, perhaps: what has been requested may be as invalid.
	if again, err := s.share(ctx, f, sharing); err == nil || errors.Is(err, tokenstore.ErrLeaseLost) {
		response = again
	}
	return response, nil // Not shared, perhaps, but good for this replica.
}

// share gets a token by way of the store. It returns ErrLeaseLost together with a
// response that couldn't be shared for it.
func (s *Source) share(ctx context.Context, f *flight, sharing *sharing) (*tokenResponse, error) {
	sharing.left = storeBudget
	var invalidation *storeCall
	sharing.spent, sharing.until, sharing.refused, invalidation = s.past(f)
	if n := len(sharing.spent); n > 0 {
		sharing.stale = sharing.spent[n-1]
	}
	if invalidation != nil && sharing.await(ctx, invalidation) != nil {
		return sharing.fetch(ctx)
	}
	return sharing.obtain(ctx)
}

// past returns the versions of the shared tokens that are to be replaced, or that have
// been, when the token that there is expires, whether there were refusals since, and the
// call that removes a version from the store; nil: none is under way. What f brings from
// now on is another than those that were invalidated until now.
func (s *Source) past(f *flight) (spent []string, until time.Time, refused bool, invalidation *storeCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.generation = s.generation
	spent, invalidation = slices.Clone(s.spent), s.invalidation
	if c := s.current.Load(); c != nil {
		until = c.sent.Add(c.dead)
		if c.shared != nil {
			spent = append(spent, c.shared.version)
		}
	}
	s.invalidation = nil
	if invalidation != nil && invalidation.ended() {
		invalidation = nil // If it has failed, spent does: it isn't taken again.
	}
	return spent, until, s.cooldown.failures > 0, invalidation
}

// maxSpent is how many versions a Source remembers. One would do if what was published
// were certain to have replaced the one before.
const maxSpent = 4

// spendLocked notes that a token from the store won't do anymore. It requires that s.mu
// is held.
func (s *Source) spendLocked(shared *sharedVersion) {
	if shared == nil || slices.Contains(s.spent, shared.version) {
		return
	}
	s.spent = append(s.spent, shared.version)
	s.spent = s.spent[max(len(s.spent)-maxSpent, 0):]
}

// invalidateSharedLocked removes a token from the store, in the background. The next
// flight waits for that. It requires that s.mu is held.
func (s *Source) invalidateSharedLocked(shared *sharedVersion) {
	if shared == nil {
		return
	}
	observer := s.conf.Observer
	s.spendLocked(shared)
	s.invalidation = shared.store.start(context.WithoutCancel(s.ctx), func(ctx context.Context) error {
		return shared.store.store.Invalidate(ctx, shared.key, shared.version)
	}, func(d time.Duration, err error) {
		observer.storeOperation(event.StoreOperation{Operation: event.Invalidate, Duration: d, Err: err})
	})
}

// obtain gets a token once the store knows what is invalid.
func (s *sharing) obtain(ctx context.Context) (*tokenResponse, error) {
	response, lead, err := s.claim(ctx)
	switch {
	case err != nil || response != nil:
		return response, err
	case lead:
		response, err = s.lead(ctx)
	default:
		response, err = s.fetch(ctx)
	}
	if response != nil {
		response.leaseWait = s.leaseWait
	}
	return response, err
}

// fetch requests a token from the server.
func (s *sharing) fetch(ctx context.Context) (*tokenResponse, error) {
	s.sending()
	return s.request.do(ctx, s.wanted)
}

// errOthersFailed ends a flight that nobody needs, rather than trying what others have
// just tried.
var errOthersFailed = errors.New("oauth2: cannot fetch token: other replicas have just tried, and failed")

// claim finds out what to do: use the response that it returns, lead, or, if neither,
// request a token without the store. It waits for other replicas while that makes
// sense. The error is that of a server which has told another replica to stay away.
func (s *sharing) claim(ctx context.Context) (response *tokenResponse, lead bool, _ error) {
	var (
		start    = time.Now()
		patience = start.Add(min(s.request.retry.AttemptTimeout, s.request.retry.TotalTimeout/2))
		leader   string
		leaders  int
		cooldown bool // whether the end of one has been waited for
		old      int
	)
	for {
		claim, asked, err := s.acquire(ctx)
		if err != nil {
			if !errors.Is(err, errStoreSlow) {
				s.abort(ctx, nil) // Only the reply may be lost, and the lease be held for nobody.
			}
			return nil, false, ctx.Err() // Nil: it is the store that fails.
		}
		var pause time.Duration
		switch claim.State {
		case tokenstore.ClaimLead:
			return nil, true, nil
		case tokenstore.ClaimHit:
			response, err := s.read(claim, asked)
			if err != nil {
				s.unreadable(err)
				return nil, false, nil // Whoever can read it may need it: it stays.
			}
			if !slices.Contains(s.spent, claim.Record.Version) && !response.almostExpired(asked, s.until) {
				response.leaseWait = s.leaseWait
				return response, false, nil
			}
			if old++; old > maxLeaders {
				return nil, false, nil
			}
			s.stale = claim.Record.Version
			continue
		case tokenstore.ClaimWait:
			if claim.Owner != leader {
				leader = claim.Owner
				leaders++
			}
			switch wanted := s.wanted(); {
			case leaders > maxLeaders && !wanted:
				return nil, false, errOthersFailed
			case leaders > maxLeaders || wanted && asked.After(patience):
				return nil, false, nil
			}
			pause = min(max(time.Since(start)/4, minPoll), maxPoll)
		case tokenstore.ClaimCooling:
			failure, rest, err := s.readNote(claim)
			if err != nil {
				s.unreadable(err)
				return nil, false, nil
			}
			// Who has waited for the leader shares its failure, which has been tried
			// hard enough. Who comes later waits for the next.
			if !s.wanted() || leaders > 0 || cooldown || asked.Add(rest).After(patience) {
				return nil, false, failure
			}
			cooldown, s.refused = true, true
			pause = rest + minPoll
		default:
			return nil, false, nil
		}
		pause = time.Duration(float64(pause) * (1 + mathrand.Float64()/4)) // So that nobody asks in step.
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
		if claim.State == tokenstore.ClaimWait {
			s.leaseWait += time.Since(asked)
		}
		s.left = storeBudget // The store has cost nothing so far.
	}
}

// unreadable tells that what is in the store is of no use here.
func (s *sharing) unreadable(err error) {
	defer func() { _ = recover() }() // What the Observer does harms nobody.
	s.request.observer.storeOperation(event.StoreOperation{Operation: event.Unseal, Err: err})
}

// acquire also returns when it was called: what the store says is no older.
func (s *sharing) acquire(ctx context.Context) (claim tokenstore.Claim, asked time.Time, err error) {
	asked = time.Now()
	var answer tokenstore.Claim // Written by a goroutine that may be late: read only after success.
	call := s.store.start(ctx, func(ctx context.Context) (err error) {
		answer, err = s.store.store.Acquire(ctx, s.key, s.stale, s.owner, leaseTime)
		return err
	}, func(d time.Duration, err error) {
		info := event.StoreOperation{Operation: event.Acquire, Duration: d, Err: err}
		if err == nil {
			info.State = answer.State
		}
		s.request.observer.storeOperation(info)
	})
	if err := s.await(ctx, call); err != nil {
		return tokenstore.Claim{}, asked, err
	}
	answer.TTL = max(answer.TTL, 0)
	return answer, asked, nil
}

// lead requests a token for all, and tells them.
func (s *sharing) lead(ctx context.Context) (*tokenResponse, error) {
	ended := false
	var failure error
	defer func() {
		if !ended {
			s.abort(ctx, failure) // Also after a panic.
		}
	}()
	response, err := s.fetchWithLease(ctx)
	if err != nil {
		failure = err
		return nil, err
	}
	record, ttl, ok := s.record(response)
	if !ok {
		return response, nil
	}
	// Also if that fails: it may have got there, and only the reply is lost.
	response.shared = &sharedVersion{s.store, s.key, record.Version}
	err = s.await(ctx, s.start(ctx, event.Publish, func(ctx context.Context) error {
		return s.store.store.Publish(ctx, s.key, s.owner, record, ttl)
	}))
	if errors.Is(err, tokenstore.ErrLeaseLost) {
		ended = true
		return response, tokenstore.ErrLeaseLost
	}
	ended = err == nil || errors.Is(err, errStoreSlow) // It may still get there.
	return response, nil
}

// fetchWithLease requests a token, and renews the lease meanwhile.
func (s *sharing) fetchWithLease(ctx context.Context) (*tokenResponse, error) {
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		for {
			select {
			case <-time.After(leaseTime / 3):
			case <-stopped:
				return
			case <-ctx.Done():
				return
			}
			// Nobody waits for it at the end: late it changes nothing.
			err := s.start(ctx, event.Renew, func(ctx context.Context) error {
				return s.store.store.Renew(ctx, s.key, s.owner, leaseTime)
			}).wait(ctx, storeBudget)
			if errors.Is(err, tokenstore.ErrLeaseLost) {
				return // Publish will tell.
			}
		}
	}()
	return s.fetch(ctx)
}

// abort ends the lease after a failure, in the background. What the server says of
// its own state is shared; what may be due to this replica alone, such as its
// network or its secret, is not.
func (s *sharing) abort(ctx context.Context, failure error) {
	var note []byte
	var cooldown time.Duration
	var refusal *oauth2.RetrieveError
	if errors.As(failure, &refusal) && IsTemporary(failure) {
		cooldown = max(retryAfter(failure, time.Now()), cooldownDelay(1, mathrand.Float64()))
		if !s.refused {
			cooldown = min(cooldown, maxSharedCooldown)
		}
		note = s.note(refusal, cooldown)
	}
	if note == nil {
		cooldown = 0
	}
	s.start(ctx, event.Abort, func(ctx context.Context) error {
		return s.store.store.Abort(ctx, s.key, s.owner, note, cooldown)
	})
}

// start starts an operation of the store, which goes on when the flight has ended.
func (s *sharing) start(ctx context.Context, operation event.Operation, f func(context.Context) error) *storeCall {
	return s.store.start(context.WithoutCancel(ctx), f, func(d time.Duration, err error) {
		s.request.observer.storeOperation(event.StoreOperation{Operation: operation, Duration: d, Err: err})
	})
}

// await waits for the end of a call, no longer than the budget allows.
func (s *sharing) await(ctx context.Context, call *storeCall) error {
	start := time.Now()
	err := call.wait(ctx, s.left)
	s.left -= time.Since(start)
	return err
}

// A sharedResponse is what a record holds, as JSON: the server's answer as it is, so
// that each replica reads it by its own rules.
type sharedResponse struct {
	MediaType string        `json:"media_type"`
	Body      []byte        `json:"body"`
	Age       time.Duration `json:"age"` // of the token when it was published
	TTL       time.Duration `json:"ttl"` // of the record
}

// record returns what to publish of a response, and for how long; false: nothing.
func (s *sharing) record(response *tokenResponse) (tokenstore.Record, time.Duration, bool) {
	shared := sharedResponse{MediaType: response.mediaType, Body: response.body, TTL: maxRecordTTL}
	if response.expiresIn != 0 {
		life := time.Duration(response.expiresIn) * time.Second
		// What is published arrives later, but while the lease holds.
		shared.Age = time.Since(response.sent) + min(leaseTime, life/20)
		shared.TTL = min(life-shared.Age, maxRecordTTL)
	}
	if shared.TTL < time.Millisecond || len(response.body) > maxRecordBody {
		return tokenstore.Record{}, 0, false
	}
	if key, err := s.request.storeKey(response.certificate); err != nil || key != s.key {
		return tokenstore.Record{}, 0, false // The certificate was replaced just now.
	}
	version := rand.Text()
	text, err := json.Marshal(shared)
	if err != nil {
		return tokenstore.Record{}, 0, false
	}
	sealed, err := s.store.seal(s.key, version, text)
	return tokenstore.Record{Version: version, Data: sealed}, shared.TTL, err == nil
}

// read returns the response that another replica has published. How old its token is
// tells what is left of the record, by the store's clock alone.
func (s *sharing) read(claim tokenstore.Claim, asked time.Time) (*tokenResponse, error) {
	text, err := s.store.open(s.key, claim.Record.Version, claim.Record.Data)
	if err != nil {
		return nil, err
	}
	var shared sharedResponse
	if err := json.Unmarshal(text, &shared); err != nil {
		return nil, errNotOpened
	}
	parsed, _, err := parseMembers(shared.Body, shared.MediaType, s.request.strict)
	if err != nil {
		return nil, err
	}
	if parsed.accessToken == "" || claim.TTL > shared.TTL || shared.Age < 0 {
		return nil, errNotOpened
	}
	if err := parsed.check(s.request.strict, s.request.dpop != nil); err != nil {
		return nil, err
	}
	response := &tokenResponse{
		members:     *parsed,
		sent:        asked,
		from:        event.FromStore,
		shared:      &sharedVersion{s.store, s.key, claim.Record.Version},
		certificate: s.certificate,
		proofKey:    s.request.proofKey,
	}
	if parsed.expiresIn != 0 {
		response.sent = asked.Add(-shared.Age - (shared.TTL - claim.TTL))
	}
	return response, nil
}

// almostExpired reports whether callers would have to wait for the replacement of
// the response's token at once, or as soon as for that of one which expires then.
func (r *tokenResponse) almostExpired(now, until time.Time) bool {
	if r.expiresIn == 0 {
		return false
	}
	life := time.Duration(r.expiresIn) * time.Second
	expiry := r.sent.Add(life)
	return !expiry.After(until) || expiry.Sub(now) <= hardWindow(life)
}

// A sharedRefusal is what a note holds, as JSON: why the server wants to be left
// alone.
type sharedRefusal struct {
	Status      int           `json:"status"`
	Code        string        `json:"error,omitempty"`
	Description string        `json:"error_description,omitempty"`
	URI         string        `json:"error_uri,omitempty"`
	Cooldown    time.Duration `json:"cooldown"`
}

// note returns what to leave for other replicas, or nil if that fails.
func (s *sharing) note(refusal *oauth2.RetrieveError, cooldown time.Duration) []byte {
	text, err := json.Marshal(sharedRefusal{refusal.Response.StatusCode, refusal.ErrorCode, refusal.ErrorDescription, refusal.ErrorURI, cooldown})
	if err != nil {
		return nil
	}
	sealed, err := s.store.seal(s.key, "", text)
	if err != nil {
		return nil
	}
	return sealed
}

// readNote returns the refusal that another replica has got, and for how long it holds.
func (s *sharing) readNote(claim tokenstore.Claim) (*oauth2.RetrieveError, time.Duration, error) {
	text, err := s.store.open(s.key, "", claim.Note)
	if err != nil {
		return nil, 0, err
	}
	var shared sharedRefusal
	if err := json.Unmarshal(text, &shared); err != nil || http.StatusText(shared.Status) == "" {
		return nil, 0, errNotOpened
	}
	cooldown := min(claim.TTL, shared.Cooldown, maxRetryAfter)
	endpoint := *s.request.endpoint
	endpoint.RawQuery = ""
	seconds := int64((cooldown + time.Second - 1) / time.Second)
	return &oauth2.RetrieveError{
		Response: &http.Response{
			Status:     fmt.Sprintf("%d %s", shared.Status, http.StatusText(shared.Status)),
			StatusCode: shared.Status,
			Header:     http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}},
			Body:       http.NoBody,
			Request:    &http.Request{Method: http.MethodPost, URL: &endpoint, Host: endpoint.Host, Header: make(http.Header)},
		},
		ErrorCode:        shared.Code,
		ErrorDescription: shared.Description,
		ErrorURI:         shared.URI,
	}, cooldown, nil
}
