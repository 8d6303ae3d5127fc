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
)

// exercise tells observer all that can happen.
func exercise(observer *clientcredentials.Observer) {
	errs := []error{errors.New("no idea"), &oauth2.RetrieveError{ErrorCode: "invalid_client", Response: &http.Response{StatusCode: 401}}}
	for _, from := range []clientcredentials.TokenFrom{clientcredentials.FromMemory, clientcredentials.FromStore, clientcredentials.FromServer} {
		for _, state := range []clientcredentials.State{clientcredentials.Fresh, clientcredentials.Stale} {
			observer.TokenServed(clientcredentials.TokenServedInfo{From: from, Waited: time.Second, State: state})
		}
		if from != clientcredentials.FromMemory {
			observer.RefreshDone(clientcredentials.RefreshDoneInfo{Duration: time.Second, Attempts: 1, Life: time.Hour, From: from, LeaseWait: time.Second})
		}
	}
	observer.RefreshStarted(clientcredentials.RefreshStartedInfo{})
	observer.RefreshStarted(clientcredentials.RefreshStartedInfo{Background: true})
	_, ended := observer.TraceRefresh(context.Background())
	ended(nil)
	for _, err := range errs {
		observer.TokenFailed(clientcredentials.TokenFailedInfo{Waited: time.Second, Err: err})
		observer.RefreshFailed(clientcredentials.RefreshFailedInfo{Duration: time.Second, Err: err})
		_, ended := observer.TraceRefresh(context.Background())
		ended(err)
		observer.Retry(clientcredentials.RetryInfo{Attempt: 1, Delay: time.Second, Err: err})
	}
	observer.Cooldown(clientcredentials.CooldownInfo{Failures: 1, Until: time.Now().Add(time.Second)})
	observer.Invalidated(clientcredentials.InvalidatedInfo{})
	observer.Invalidated(clientcredentials.InvalidatedInfo{Rejected: true})
	observer.Invalidated(clientcredentials.InvalidatedInfo{CertificateReplaced: true})
	for _, operation := range []string{"acquire", "renew", "publish", "abort", "invalidate"} {
		observer.StoreOperation(clientcredentials.StoreOperationInfo{Operation: operation, Duration: time.Second})
		observer.StoreOperation(clientcredentials.StoreOperationInfo{Operation: operation, Err: errors.New("down")})
	}
	for _, state := range []clientcredentials.ClaimState{clientcredentials.ClaimLead, clientcredentials.ClaimHit, clientcredentials.ClaimWait, clientcredentials.ClaimCooling} {
		observer.StoreOperation(clientcredentials.StoreOperationInfo{Operation: "acquire", State: state})
	}
	observer.StoreOperation(clientcredentials.StoreOperationInfo{Operation: "publish", Err: fmt.Errorf("late: %w", clientcredentials.ErrLeaseLost)})
	observer.OriginRefused(clientcredentials.OriginRefusedInfo{Origin: "https://elsewhere.example"})
}

// TestEveryEvent fails when there is something new to measure.
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
