package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// A service answers GET /summary with a summary of the reports of an API. It knows
// nothing about tokens. The client handles them.
type service struct {
	client *http.Client // of a clientcredentials.Config
	apiURL string
	logger *slog.Logger
}

func newService(client *http.Client, apiURL string, logger *slog.Logger) http.Handler {
	s := &service{client: client, apiURL: apiURL, logger: logger}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /summary", s.summary)
	return mux
}

func (s *service) summary(w http.ResponseWriter, r *http.Request) {
	reports, err := s.reports(r.Context()) // The context limits the wait for a token, too.
	if err != nil {
		s.fail(w, err)
		return
	}
	fmt.Fprintf(w, "%d reports\n", len(reports))
}

func (s *service) reports(ctx context.Context) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.apiURL+"reports", nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API answered %s", resp.Status)
	}
	var reports []string
	return reports, json.NewDecoder(resp.Body).Decode(&reports)
}

// fail tells the caller whose fault it is, and logs the details.
func (s *service) fail(w http.ResponseWriter, err error) {
	var refusal *oauth2.RetrieveError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		http.Error(w, "the reports took too long", http.StatusGatewayTimeout)
	case errors.As(err, &refusal) && !clientcredentials.IsTemporary(err):
		// The caller can do nothing. Somebody must look at our credentials.
		http.Error(w, "this service is misconfigured", http.StatusInternalServerError)
	default:
		http.Error(w, "the reports are not available", http.StatusBadGateway)
	}
	s.logger.Error("no summary", "error", err) // The errors of clientcredentials contain no secret.
}
