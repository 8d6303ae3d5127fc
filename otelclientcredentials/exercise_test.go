package otelclientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// exercise reports everything that can happen to observer.
func exercise(observer *clientcredentials.Observer) {
	errs := []error{errors.New("no idea"), &oauth2.RetrieveError{ErrorCode: "invalid_client", Response: &http.Response{StatusCode: 401}}}
	for _, from := range []event.TokenFrom{event.FromMemory, event.FromStore, event.FromServer} {
		for _, stale := range []bool{false, true} {
			observer.TokenServed(event.TokenServed{From: from, Waited: time.Second, Stale: stale})
		}
		if from != event.FromMemory {
			observer.RefreshDone(event.RefreshDone{Duration: time.Second, Attempts: 1, Life: time.Hour, From: from, LeaseWait: time.Second})
		}
	}
	observer.RefreshStarted(event.RefreshStarted{})
	observer.RefreshStarted(event.RefreshStarted{Background: true})
	_, ended := observer.TraceRefresh(context.Background())
	ended(nil)
	for _, err := range errs {
		observer.TokenFailed(event.TokenFailed{Waited: time.Second, Err: err})
		observer.RefreshFailed(event.RefreshFailed{Duration: time.Second, Err: err})
		_, ended := observer.TraceRefresh(context.Background())
		ended(err)
		observer.Retry(event.Retry{Attempt: 1, Delay: time.Second, Err: err})
	}
	observer.Cooldown(event.Cooldown{Failures: 1, Until: time.Now().Add(time.Second)})
	for _, reason := range []event.InvalidationReason{event.Revoked, event.Rejected, event.CertificateReplaced} {
		observer.Invalidated(event.Invalidated{Reason: reason})
	}
	for _, operation := range []event.Operation{event.Acquire, event.Renew, event.Publish, event.Abort, event.Invalidate, event.Unseal} {
		observer.StoreOperation(event.StoreOperation{Operation: operation, Duration: time.Second})
		observer.StoreOperation(event.StoreOperation{Operation: operation, Err: errors.New("down")})
	}
	for _, state := range []tokenstore.ClaimState{tokenstore.ClaimLead, tokenstore.ClaimHit, tokenstore.ClaimWait, tokenstore.ClaimCooling} {
		observer.StoreOperation(event.StoreOperation{Operation: event.Acquire, State: state})
	}
	observer.StoreOperation(event.StoreOperation{Operation: event.Publish, Err: fmt.Errorf("late: %w", tokenstore.ErrLeaseLost)})
	for _, outcome := range []event.OriginOutcome{event.RequestRefused, event.SentWithoutToken} {
		observer.OriginRefused(event.OriginRefused{Origin: "https://elsewhere.example", Outcome: outcome})
	}
}

// This fails when the core has an event that this package should measure.
func TestEveryEvent(t *testing.T) {
	observer := reflect.ValueOf(newTelemetry().observer(t)).Elem()
	var leftOut []string
	for i := range observer.NumField() {
		if observer.Field(i).IsNil() {
			leftOut = append(leftOut, observer.Type().Field(i).Name)
		}
	}
	require.Equal(t, []string{"Insecure"}, leftOut)
}
