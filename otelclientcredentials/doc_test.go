package otelclientcredentials

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

var update = flag.Bool("update", false, "write the tables in doc.go")

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
	target := clientcredentials.Target{Audience: "billing"}.ID()
	observer.TokenServed(event.TokenServed{Target: target, Waited: time.Second})
	observer.RefreshStarted(event.RefreshStarted{Target: target})
	observer.RefreshDone(event.RefreshDone{Target: target, From: event.FromStore, LeaseWait: time.Second})
	observer.Cooldown(event.Cooldown{Target: target})
	observer.Invalidated(event.Invalidated{Target: target})
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
		if observer.Field(i).IsZero() {
			leftOut = append(leftOut, observer.Type().Field(i).Name)
		}
	}
	require.Equal(t, []string{"Insecure"}, leftOut)
}

// everything returns all metrics, sorted by name, after everything has happened once.
func everything(t *testing.T) (collected []metricdata.Metrics, tel *telemetry) {
	bubble(t, func(t *testing.T, w *world) {
		source, _ := w.register(t)
		w.get(t, source)
		exercise(w.conf.Observer)
		collected, tel = w.metrics(t), w.telemetry
	})
	slices.SortFunc(collected, func(a, b metricdata.Metrics) int { return strings.Compare(a.Name, b.Name) })
	return collected, tel
}

// This compares the tables in doc.go with what the SDK got. With -update it writes them.
func TestDocumentation(t *testing.T) {
	kinds := map[string]string{
		"metricdata.Sum[int64]":         "counter",
		"metricdata.Gauge[float64]":     "gauge",
		"metricdata.Histogram[float64]": "histogram",
	}
	collected, _ := everything(t)
	var metrics, attributes []string
	all := map[string]map[string]bool{} // the values of each attribute
	for _, m := range collected {
		metrics = append(metrics, fmt.Sprintf("%-44s %s, %s", m.Name, kinds[fmt.Sprintf("%T", m.Data)], m.Unit), "    "+m.Description)
		keys := map[string]bool{}
		for _, p := range points(m) {
			for _, a := range p.attributes.ToSlice() {
				key := string(a.Key)
				keys[key] = true
				if all[key] == nil {
					all[key] = map[string]bool{}
				}
				all[key][fmt.Sprint(a.Value.AsInterface())] = true
			}
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			metrics = append(metrics, "    - "+key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		list := "see below"
		if key != "error.type" {
			list = strings.Join(slices.Sorted(maps.Keys(all[key])), ", ")
		}
		attributes = append(attributes, fmt.Sprintf("%-44s %s", key, list))
	}

	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	want := withTable(t, string(source), "Metrics", metrics)
	want = withTable(t, want, "Attributes", attributes)
	if *update {
		require.NoError(t, os.WriteFile("doc.go", []byte(want), 0o600))
		return
	}
	require.Equal(t, want, string(source), "run: go test -run TestDocumentation -update")
}

// withTable returns doc with the first table under a heading replaced by lines.
func withTable(t *testing.T, doc, heading string, lines []string) string {
	t.Helper()
	head, rest, ok := strings.Cut(doc, "\n// # "+heading+"\n")
	require.True(t, ok, heading)
	at := regexp.MustCompile(`(?m)(^//\t.*\n)+`).FindStringIndex(rest)
	require.NotNil(t, at, heading)
	return head + "\n// # " + heading + "\n" + rest[:at[0]] + "//\t" + strings.Join(lines, "\n//\t") + "\n" + rest[at[1]:]
}

// This compares the list of errors in doc.go with the code.
func TestDocumentedErrors(t *testing.T) {
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(source), "\n// # Errors\n")
	section, _, _ := strings.Cut(rest, "\n// # ")
	section = regexp.MustCompile(`\n//\s+`).ReplaceAllString(section, " ")
	codes := regexp.MustCompile(`token requests: ([a-z_, ]+)\.`).FindStringSubmatch(section)
	require.NotNil(t, codes)
	require.Equal(t, strings.Join(slices.Sorted(slices.Values(oauthErrors)), ", "), codes[1])
	var words []string
	for _, match := range regexp.MustCompile(`- (\w+): `).FindAllStringSubmatch(section, -1) {
		words = append(words, match[1])
	}
	require.Equal(t, []string{typeInvalidResponse, typeTimeout, typeCanceled, typeDNS, typeTLS, typeConnection, typeOther}, words)
}

// These are rules of the semantic conventions: the general guidelines for metrics, the
// rules for names, and those for recording errors.
func TestInstrumentationRules(t *testing.T) {
	require.Equal(t, ScopeName, reflect.TypeFor[telemetry]().PkgPath())
	name := regexp.MustCompile(`^clientcredentials(\.[a-z]+(_[a-z]+)*)+$`)
	value := regexp.MustCompile(`^(_OTHER|[a-z]+(_[a-z]+)*|[3-5][0-9][0-9])$`)
	checkAttributes := func(attributes []attribute.KeyValue, where string) {
		for _, a := range attributes {
			if a.Key != "error.type" && a.Key != "http.response.status_code" {
				require.Regexp(t, name, a.Key, where)
			}
			require.Regexp(t, value, fmt.Sprint(a.Value.AsInterface()), "%s: %s", where, a.Key)
		}
	}
	// The default buckets of the SDK are for milliseconds.
	buckets := map[string][]float64{
		"clientcredentials.store.operation.duration": storeBuckets,
		"clientcredentials.token.cooldown.duration":  cooldownBuckets,
	}
	collected, tel := everything(t)
	require.Len(t, collected, 11)
	for _, m := range collected {
		require.Regexp(t, name, m.Name)
		require.Regexp(t, `^[A-Z][^\n]*\.$`, m.Description, m.Name)
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			require.True(t, data.IsMonotonic, m.Name)
			require.Regexp(t, `^\{[a-z]+\}$`, m.Unit, m.Name)
			require.Regexp(t, "s$", m.Name, "a counter has a name in the plural")
		case metricdata.Histogram[float64]:
			require.Equal(t, "s", m.Unit, m.Name)
			require.Regexp(t, `\.duration$`, m.Name)
			want, ok := buckets[m.Name]
			if !ok {
				want = waitBuckets
			}
			require.Equal(t, want, data.DataPoints[0].Bounds, m.Name)
		}
		for _, p := range points(m) {
			checkAttributes(p.attributes.ToSlice(), m.Name)
		}
		require.LessOrEqual(t, len(points(m)), 20, m.Name)
	}
	for _, span := range tel.spans.Ended() {
		checkAttributes(span.Attributes(), span.Name())
	}
}

func TestVersion(t *testing.T) {
	require.Empty(t, Version(), "a test has no version")
	module := &debug.Module{Path: ScopeName, Version: "v1.2.3"}
	deps := &debug.BuildInfo{Deps: []*debug.Module{{Path: ScopeName + "/v2", Version: "v2.0.0"}, module}}
	require.Equal(t, "v1.2.3", versionIn(deps))
	module.Replace = &debug.Module{Path: "../"}
	require.Empty(t, versionIn(deps))
}
