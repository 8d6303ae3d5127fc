package clientcredentials

import (
	"context"
	"crypto/rand"
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
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// This file is about the tokens that replicas share through Config.Store: what a
// flight does with the store before and after its token request.

const (
	// leaseTime is how long a replica that dies while it requests a token keeps the others
	// waiting. A replica that is alive renews its lease every third of this time, so
	// leaseTime needn't be as long as a token request may take.
	leaseTime = 5 * time.Second

	// A replica that waits for another one asks again after a quarter of the time it has
	// waited so far, within these limits. So little time is lost, and the store isn't asked
	// often if the wait becomes long. maxPoll with its jitter and a slow call of the store
	// is shorter than the shortest cooldown, so that nobody misses one.
	minPoll = 25 * time.Millisecond
	maxPoll = 400 * time.Millisecond

	// maxLeaders is how many replicas are waited for, one after the other. If all of them
	// end without a token or a cooldown, more waiting costs more than it saves.
	maxLeaders = 2

	// maxSharedCooldown is how long the first refusal keeps all replicas away, whatever its
	// Retry-After: it may be due to one replica alone, for example to its address. The
	// second refusal is believed.
	maxSharedCooldown = time.Minute

	// maxRecordBody is the largest answer of the authorization server that is shared.
	// Larger tokens don't fit into a request header anyway.
	maxRecordBody = 48 << 10

	// maxRecordTTL bounds how long a record is kept: a token may never expire, but the
	// replicas that use it may disappear.
	maxRecordTTL = 24 * time.Hour
)

// A sharing is what one flight does with Config.Store. As soon as the store fails, it stops
// using the store, and continues with an ordinary token request.
type sharing struct {
	request *tokenRequest
	store   *SharedStore
	bound   binding // of the tokens under key
	key     string  // of the token in the store
	owner   string  // of the lease
	source  *Source
	flight  *flight

	past
	stale string        // the version in spent that may still be in the store; empty: none
	left  time.Duration // of storeBudget, which is for all calls together that somebody waits for

	leaseWait time.Duration // for other replicas
}

// past is what a Source remembers that matters for its next shared token.
type past struct {
	spent    []string  // versions of records that can't be used anymore
	until    time.Time // when the current token expires; zero: there is none
	refused  bool      // the server has recently refused this replica, or another one that it knows of
	least    time.Time // when a record must have been issued at the earliest; zero: any time
	asks     bool      // the token must come from the server
	rejected bool      // an API has recently rejected a token, and may reject the next one too
}

// A sharedVersion says where a token is in a store.
type sharedVersion struct {
	store        *SharedStore
	key, version string
}

// A fleetMemory is what a Source remembers of the tokens that it has shared. Its methods
// require that Source.mu is held.
type fleetMemory struct {
	spent        []string   // versions of the last shared tokens that were current, the newest last
	invalidation *storeCall // the last call that removed a version from the store; nil: there was none
	least        time.Time  // when a record must have been issued at the earliest; zero: any time
	asks         bool       // the next token must come from the server
	note         obeyedNote // the last one
}

// An obeyedNote is a note that keeps this replica from asking the server.
type obeyedNote struct {
	written time.Time
	until   clock.Deadline
}

// maxClockSkew is how far the clocks of two replicas may be apart.
//
// Whoever can write to the store can put back old records and notes, although they are
// sealed. Therefore the seal also covers when they were written, by the clock of the
// replica that did so, and old ones don't count:
//
//   - A record doesn't count if its token has expired by then, if it is the one with a token
//     that was dropped, or if it is older by more than this than the token that the replica
//     has or had, or than the drop of a token.
//   - A note doesn't count if its cooldown is over by then, or if it is older by more than
//     this than the token that the replica has or had. It holds once, then the server is
//     asked.
//   - If an API rejects two tokens from the store, one after the other, the server is asked.
const maxClockSkew = 10 * time.Minute

// maxSpent is how many versions a fleetMemory holds. One would be enough if a record that
// was published had certainly replaced the one before.
const maxSpent = 4

// spend notes that a token from the store can't be used anymore.
func (m *fleetMemory) spend(shared *sharedVersion) {
	if slices.Contains(m.spent, shared.version) {
		return
	}
	m.spent = append(m.spent, shared.version)
	m.spent = m.spent[max(len(m.spent)-maxSpent, 0):]
}

// distrust notes that c was dropped, so that nothing older takes its place.
func (m *fleetMemory) distrust(c *cachedToken, now time.Time) {
	m.least = latest(m.least, latest(c.issued, now).Add(-maxClockSkew))
}

// obey returns how long this replica is to obey a note that says to pause for that long.
// 0: not anymore.
func (m *fleetMemory) obey(written time.Time, pause time.Duration, newest, now time.Time) time.Duration {
	switch {
	case written.Before(newest.Add(-maxClockSkew)), written.Before(m.note.written):
		return 0
	case written.After(m.note.written):
		left := written.Add(pause + maxClockSkew).Sub(now)
		m.note = obeyedNote{written, clock.In(now, min(pause, left))}
	}
	return max(min(pause, m.note.until.Left(now)), 0)
}

// latest returns the last of several times.
func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// invalidateSharedLocked removes a token from the store, in the background, if it is there.
// The next flight waits until that is done. It requires that s.mu is held.
func (s *Source) invalidateSharedLocked(shared *sharedVersion) {
	if shared == nil {
		return
	}
	fleet := &s.rarely().fleet
	fleet.spend(shared)
	fleet.invalidation = shared.store.call(context.WithoutCancel(s.ctx), s.conf.observer(), event.Invalidate, func(ctx context.Context) (tokenstore.ClaimState, error) {
		return 0, shared.store.store.Invalidate(ctx, shared.key, shared.version)
	})
}

// recall returns what s remembers, and the call that removes a version from the store, or
// nil if none is under way. It also notes in f that the invalidations so far don't concern
// the token that f will bring.
func (s *Source) recall(f *flight) (past, *storeCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.generation = s.generation
	now := time.Now()
	var p past
	var invalidation *storeCall
	if rare := s.rare.Load(); rare != nil {
		p.spent = slices.Clone(rare.fleet.spent)
		p.refused = rare.cooldown.failures > 0
		p.least, p.asks = rare.fleet.least, rare.fleet.asks
		p.rejected = rare.rejections.isRecent(now)
		invalidation, rare.fleet.invalidation = rare.fleet.invalidation, nil
		if invalidation != nil && invalidation.HasEnded() {
			invalidation = nil // If it has failed, spent keeps the version from being used again.
		}
	}
	if c := s.current.Load(); c != nil {
		// A token that the store gave right after a rejection is suspect if it needs to be
		// replaced already.
		p.asks = p.asks || p.rejected && c.fromStore && !s.rarely().rejections.final
		p.until = now.Add(c.dead - c.age(now)) // Also after the machine was suspended.
		p.least = latest(p.least, c.issued.Add(-maxClockSkew))
		if c.shared != nil {
			p.spent = append(p.spent, c.shared.version)
		}
	}
	return p, invalidation
}

// obtain gets a token for f: from another replica by way of the store, or from the
// server.
func (s *Source) obtain(ctx context.Context, f *flight) (*tokenResponse, error) {
	request := f.request
	if request.conf.Store == nil || request.identifyClient(ctx) != nil || request.bind(ctx) != nil {
		return s.request(ctx, f) // Reports the same error.
	}
	if err := request.identifySubject(ctx); err != nil {
		return nil, err
	}
	sharing := &sharing{
		request: request, store: request.conf.Store, bound: request.bound, key: request.storeKey(), owner: rand.Text(),
		source: s, flight: f,
	}
	response, err := sharing.share(ctx)
	if !errors.Is(err, tokenstore.ErrLeaseLost) {
		return response, err
	}
	// Perhaps the lease was lost to an invalidation, and the new token is just as invalid.
	if again, err := sharing.share(ctx); err == nil || errors.Is(err, tokenstore.ErrLeaseLost) {
		response = again
	}
	return response, nil // It may not be shared, but this replica can use it.
}

// share gets a token by way of the store. If it loses the lease, it returns ErrLeaseLost
// together with a response that isn't shared.
func (s *sharing) share(ctx context.Context) (*tokenResponse, error) {
	s.left = storeBudget
	var invalidation *storeCall
	s.past, invalidation = s.source.recall(s.flight)
	if n := len(s.spent); n > 0 {
		s.stale = s.spent[n-1]
	}
	if invalidation != nil && s.await(ctx, invalidation) != nil {
		return s.fetch(ctx)
	}
	response, lead, err := s.claim(ctx)
	switch {
	case err != nil:
		return nil, err
	case response != nil: // another replica's
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
	s.source.mu.Lock()
	s.flight.generation = s.source.generation // The token is newer than the invalidations until now.
	s.source.mu.Unlock()
	return s.source.request(ctx, s.flight)
}

// request requests a token for f from the server.
func (s *Source) request(ctx context.Context, f *flight) (*tokenResponse, error) {
	response, err := f.request.do(ctx, f.wanted.Load)
	if err == nil {
		s.recognise(response)
	}
	return response, err
}

// recognise completes a response with what s knows of the token that it brings.
func (s *Source) recognise(response *tokenResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	response.recognise(s.current.Load())
	response.recognise(s.previous)
}

// errOthersFailed ends a flight that nobody waits for, instead of trying what other replicas
// have just tried.
const errOthersFailed = constantError("oauth2: cannot fetch token: other replicas have just tried, and failed")

// claim decides what to do: use the response that it returns, lead, or, if neither,
// request a token without the store. It waits for other replicas as long as that makes
// sense. It returns an error if the server has asked another replica to pause.
func (s *sharing) claim(ctx context.Context) (response *tokenResponse, lead bool, _ error) {
	var (
		start    = time.Now()
		patience = start.Add(min(s.request.conf.Retry.AttemptTimeout, s.request.conf.Retry.TotalTimeout/2))
		leader   string // the one that this replica waits for
		leaders  int    // how many it has waited for
		cooldown bool   // it has waited for the end of a cooldown
		old      int    // how many records were of no use
	)
	for {
		claim, asked, err := s.ask(ctx)
		if err != nil {
			if !errors.Is(err, slowStoreError{}) {
				s.abort(ctx, nil) // The lease may have been granted and only the reply lost: release it.
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
				s.tellUnreadable(err)
				return nil, false, nil // The record stays: other replicas may be able to read it.
			}
			if !slices.Contains(s.spent, claim.Record.Version) && !response.almostExpired(asked, s.until) && !s.asks && !response.isOld(s.least) {
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
			switch wanted := s.flight.wanted.Load(); {
			case leaders > maxLeaders && !wanted:
				return nil, false, errOthersFailed
			case leaders > maxLeaders || wanted && asked.After(patience):
				return nil, false, nil
			}
			pause = min(max(time.Since(start)/4, minPoll), maxPoll)
		case tokenstore.ClaimCooling:
			failure, rest, err := s.readNote(claim)
			if err != nil {
				s.tellUnreadable(err)
				return nil, false, nil
			}
			if rest <= 0 {
				return nil, false, nil // It is old, or has been obeyed.
			}
			// A replica that has waited for the leader shares its failure, because the
			// leader has tried hard enough. A replica that comes later waits for the next
			// leader.
			if !s.flight.wanted.Load() || leaders > 0 || cooldown || asked.Add(rest).After(patience) {
				return nil, false, failure
			}
			cooldown, s.refused = true, true
			pause = rest + minPoll
		default:
			return nil, false, nil
		}
		pause = time.Duration(float64(pause) * (1 + mathrand.Float64()/4)) // So that replicas don't ask all at once.
		if err := clock.In(time.Now(), pause).Wait(ctx); err != nil {
			return nil, false, err
		}
		if claim.State == tokenstore.ClaimWait {
			s.leaseWait += time.Since(asked)
		}
		s.left = storeBudget // The store has cost no time so far.
	}
}

// tellUnreadable tells the Observer that this replica can't use what is in the store.
func (s *sharing) tellUnreadable(err error) {
	observer := s.request.conf.observer()
	bounded.Tell(observer.StoreOperation, event.StoreOperation{Operation: event.Unseal, Err: err})
}

// ask asks the store what to do. It also returns when it asked: the answer is no older.
func (s *sharing) ask(ctx context.Context) (claim tokenstore.Claim, asked time.Time, err error) {
	asked = time.Now()
	var answer tokenstore.Claim // Read only after success: a late call may still write to it.
	call := s.store.call(ctx, s.request.conf.observer(), event.Acquire, func(ctx context.Context) (_ tokenstore.ClaimState, err error) {
		answer, err = s.store.store.Acquire(ctx, s.key, s.stale, s.owner, leaseTime)
		return answer.State, err
	})
	if err := s.await(ctx, call); err != nil {
		return tokenstore.Claim{}, asked, err
	}
	answer.TTL = max(answer.TTL, 0)
	return answer, asked, nil
}

// lead requests a token for all replicas, and publishes it.
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
	// Note this even if Publish fails: the record may have arrived and only the reply
	// been lost.
	response.shared = &sharedVersion{s.store, s.key, record.Version}
	err = s.await(ctx, s.call(ctx, event.Publish, func(ctx context.Context) error {
		return s.store.store.Publish(ctx, s.key, s.owner, record, ttl)
	}))
	if errors.Is(err, tokenstore.ErrLeaseLost) {
		ended = true
		return response, tokenstore.ErrLeaseLost
	}
	ended = err == nil || errors.Is(err, slowStoreError{}) // A slow record may still arrive.
	return response, nil
}

// fetchWithLease requests a token, and renews the lease until it has one.
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
			// Nobody waits for a renewal that is under way at the end. It changes nothing
			// then.
			_, err := s.call(ctx, event.Renew, func(ctx context.Context) error {
				return s.store.store.Renew(ctx, s.key, s.owner, leaseTime)
			}).Wait(ctx)
			if errors.Is(err, tokenstore.ErrLeaseLost) {
				return // Publish will report it.
			}
		}
	}()
	return s.fetch(ctx)
}

// abort ends the lease after a failure, in the background. It shares what the server says
// about itself, but not what may be due to this replica alone, such as its network or its
// secret.
func (s *sharing) abort(ctx context.Context, failure error) {
	var note []byte
	var cooldown time.Duration
	refusal := refusalOf(failure)
	var authentication *authError // It may wrap the refusal of another server.
	if refusal != nil && IsTemporary(failure) && !errors.As(failure, &authentication) {
		cooldown = max(retryAfter(failure, time.Now()), cooldownDelay(1, mathrand.Float64()))
		if !s.refused {
			cooldown = min(cooldown, maxSharedCooldown)
		}
		note = s.note(refusal, cooldown)
	}
	if note == nil {
		cooldown = 0
	}
	s.call(ctx, event.Abort, func(ctx context.Context) error {
		return s.store.store.Abort(ctx, s.key, s.owner, note, cooldown)
	})
}

// call starts a call of the store that goes on after the end of the flight.
func (s *sharing) call(ctx context.Context, operation event.Operation, f func(context.Context) error) *storeCall {
	return s.store.call(context.WithoutCancel(ctx), s.request.conf.observer(), operation, func(ctx context.Context) (tokenstore.ClaimState, error) {
		return 0, f(ctx)
	})
}

// await waits for the end of a call, no longer than the budget allows.
func (s *sharing) await(ctx context.Context, call *storeCall) error {
	start := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, s.left, slowStoreError{})
	defer cancel()
	_, err := call.Wait(limited)
	s.left -= time.Since(start)
	return err
}

// A sharedResponse is what a record holds, as JSON. It has the server's answer unchanged, so
// that each replica reads it by its own rules.
type sharedResponse struct {
	MediaType string        `json:"media_type"`
	Body      []byte        `json:"body"`
	Age       time.Duration `json:"age"`                // of the token when it was published
	TTL       time.Duration `json:"ttl"`                // of the record
	Life      time.Duration `json:"life,omitzero"`      // of the token, if the answer doesn't say so but an earlier one with the same token did
	Issued    time.Time     `json:"issued,omitzero"`    // by the clock of the replica that requested the token
	Rejected  bool          `json:"rejected,omitempty"` // an API had just rejected the token before
}

// record returns the record to publish for a response, and how long to keep it. It returns
// false if there is nothing to publish.
func (s *sharing) record(response *tokenResponse) (tokenstore.Record, time.Duration, bool) {
	shared := sharedResponse{MediaType: response.mediaType, Body: response.body, TTL: maxRecordTTL, Issued: response.issued, Rejected: s.rejected}
	if response.expires() {
		// The record arrives later than now, but while the lease lasts.
		shared.Age = time.Since(response.sent) + min(leaseTime, response.life()/20)
		shared.TTL = min(response.life()-shared.Age, maxRecordTTL)
		if response.ExpiresIn == 0 {
			shared.Life = response.life()
		}
	}
	if shared.TTL < time.Millisecond || len(response.body) > maxRecordBody {
		return tokenstore.Record{}, 0, false
	}
	if s.request.storeKey() != s.key {
		return tokenstore.Record{}, 0, false // The certificate, the client identifier or the Grant's subject has just been replaced.
	}
	version := rand.Text()
	text, err := json.Marshal(shared)
	if err != nil {
		return tokenstore.Record{}, 0, false
	}
	sealed, err := s.store.seal(s.key, version, text)
	return tokenstore.Record{Version: version, Data: sealed}, shared.TTL, err == nil
}

// read returns the response that another replica has published. The time that the record has
// left, by the store's clock alone, says how old its token is.
func (s *sharing) read(claim tokenstore.Claim, asked time.Time) (*tokenResponse, error) {
	text, err := s.store.unseal(s.key, claim.Record.Version, claim.Record.Data)
	if err != nil {
		return nil, err
	}
	var shared sharedResponse
	if err := json.Unmarshal(text, &shared); err != nil {
		return nil, errNotOpened
	}
	parsed, err := tokenresponse.Parse(shared.Body, shared.MediaType, s.request.conf.Strict)
	if err != nil {
		return nil, err
	}
	if parsed.AccessToken == "" || claim.TTL > shared.TTL || shared.Age < 0 {
		return nil, errNotOpened
	}
	if err := s.request.checkResponse(parsed); err != nil {
		return nil, err
	}
	response := &tokenResponse{
		Response: parsed,
		body:     shared.Body,
		sent:     asked,
		from:     event.FromStore,
		shared:   &sharedVersion{s.store, s.key, claim.Record.Version},
		bound:    s.bound,
		issued:   shared.Issued,
		rejected: shared.Rejected,
		foreign:  s.request.isForeign(parsed),
	}
	if parsed.ExpiresIn != 0 || shared.Life != 0 {
		response.sent = asked.Add(-shared.Age - (shared.TTL - claim.TTL))
		if latest := shared.Issued.Add(maxClockSkew); !shared.Issued.IsZero() && latest.Before(response.sent) {
			response.sent = latest // The store's clock says less, or somebody has put back an old record.
		}
	}
	if shared.Life != 0 {
		response.known = response.sent.Add(shared.Life)
	}
	s.source.recognise(response)
	return response, nil
}

// isOld reports whether the response was issued before least. One that doesn't say when
// counts as old if that matters.
func (r *tokenResponse) isOld(least time.Time) bool { return !least.IsZero() && r.issued.Before(least) }

// almostExpired reports whether the token isn't worth taking: callers would have to wait for
// its replacement at once, or it expires no later than the current token, at until.
func (r *tokenResponse) almostExpired(now, until time.Time) bool {
	if !r.expires() {
		return false
	}
	expiry := r.sent.Add(r.life())
	return !expiry.After(until) || expiry.Sub(now) <= hardWindow(r.life())
}

// A sharedRefusal is what a note holds, as JSON: the answer with which the server has asked
// for a pause.
type sharedRefusal struct {
	Status      int           `json:"status"`
	Code        string        `json:"error,omitempty"`
	Description string        `json:"error_description,omitempty"`
	URI         string        `json:"error_uri,omitempty"`
	Cooldown    time.Duration `json:"cooldown"`
	Written     time.Time     `json:"written,omitzero"` // by the clock of the replica that was refused
}

// obeyNote returns how long to obey a note that says to pause for that long.
func (s *Source) obeyNote(written time.Time, pause time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var newest time.Time
	for _, c := range []*cachedToken{s.current.Load(), s.previous} {
		if c != nil {
			newest = latest(newest, c.issued)
		}
	}
	return s.rarely().fleet.obey(written, pause, newest, time.Now())
}

// note returns what to leave for other replicas, or nil if that fails.
func (s *sharing) note(refusal *oauth2.RetrieveError, cooldown time.Duration) []byte {
	text, err := json.Marshal(sharedRefusal{refusal.Response.StatusCode, refusal.ErrorCode, refusal.ErrorDescription, refusal.ErrorURI, cooldown, time.Now().Round(0)})
	if err != nil {
		return nil
	}
	sealed, err := s.store.seal(s.key, "", text)
	if err != nil {
		return nil
	}
	return sealed
}

// readNote returns the refusal that another replica got, and how long it still holds.
func (s *sharing) readNote(claim tokenstore.Claim) (*oauth2.RetrieveError, time.Duration, error) {
	text, err := s.store.unseal(s.key, "", claim.Note)
	if err != nil {
		return nil, 0, err
	}
	var shared sharedRefusal
	if err := json.Unmarshal(text, &shared); err != nil || http.StatusText(shared.Status) == "" {
		return nil, 0, errNotOpened
	}
	cooldown := s.source.obeyNote(shared.Written, min(claim.TTL, shared.Cooldown, maxRetryAfter))
	endpoint := redact.BareURL(s.request.endpoint)
	seconds := int64((cooldown + time.Second - 1) / time.Second)
	return &oauth2.RetrieveError{
		Response: &http.Response{
			Status:     fmt.Sprintf("%d %s", shared.Status, http.StatusText(shared.Status)),
			StatusCode: shared.Status,
			Header:     http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}},
			Body:       http.NoBody,
			Request:    &http.Request{Method: http.MethodPost, URL: endpoint, Host: endpoint.Host, Header: make(http.Header)},
		},
		ErrorCode:        shared.Code,
		ErrorDescription: shared.Description,
		ErrorURI:         shared.URI,
	}, cooldown, nil
}
