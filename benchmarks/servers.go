package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An instant is an authorization server without a network: a RoundTripper that answers
// each request at once with a token.
type instant struct{ answer []byte }

func newInstant(tokenLength int, life time.Duration) *instant {
	return &instant{tokenResponse(1, tokenLength, life)}
}

func (i *instant) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		Status:        "200 OK",
		StatusCode:    http.StatusOK,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(i.answer)),
		ContentLength: int64(len(i.answer)),
		Request:       req,
	}, nil
}

// tokenResponse returns a token response, RFC 6749, Section 5.1. Each number makes a
// different token.
func tokenResponse(number int64, tokenLength int, life time.Duration) []byte {
	token := fmt.Sprintf("%d.%s", number, strings.Repeat("x", max(tokenLength-2, 0)))
	return fmt.Appendf(nil, `{"access_token":%q,"token_type":"Bearer","expires_in":%d}`, token, int64(life.Seconds()))
}

// A noAPI is an API that costs nothing and has no network. So only the cost of adding the
// token is measured.
type noAPI struct{ answer *http.Response }

func newNoAPI() noAPI {
	return noAPI{&http.Response{Status: "200 OK", StatusCode: http.StatusOK, Header: make(http.Header), Body: http.NoBody, Request: new(http.Request)}}
}

func (n noAPI) RoundTrip(*http.Request) (*http.Response, error) { return n.answer, nil }

// apiURL is the address of a noAPI.
const apiURL = "https://api.example.com/reports"

// An authServer is an authorization server on the loopback interface.
type authServer struct {
	URL  string
	life time.Duration // of its tokens

	delay atomic.Int64 // of an answer, a time.Duration
	state atomic.Int32

	requests atomic.Int64

	server    *httptest.Server
	transport *http.Transport // to it

	mu       sync.Mutex // protects what follows
	answered []answered
}

// The states of an authServer.
const (
	up       int32 = iota
	down           // answers 503
	refusing       // answers 401: it doesn't know the client
)

// An answered is a token request that was answered.
type answered struct {
	start, end time.Time
	ok         bool
}

func startAuthServer(life time.Duration) *authServer {
	s := &authServer{life: life}
	s.server = httptest.NewServer(s)
	s.URL = s.server.URL + "/token"
	s.transport = s.server.Client().Transport.(*http.Transport).Clone()
	return s
}

func (s *authServer) close() {
	s.transport.CloseIdleConnections()
	s.server.Close()
}

func (s *authServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	number, start := s.requests.Add(1), time.Now()
	if delay := time.Duration(s.delay.Load()); delay > 0 {
		select {
		case <-time.After(delay):
		case <-req.Context().Done():
		}
	}
	state := s.state.Load()
	s.mu.Lock()
	s.answered = append(s.answered, answered{start, time.Now(), state == up})
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch state {
	case down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case refusing:
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error":"invalid_client"}`)
	default:
		w.Write(tokenResponse(number, tokenLength, s.life))
	}
}

// log returns the token requests so far.
func (s *authServer) log() []answered {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]answered(nil), s.answered...)
}

// settings returns the settings of a client of s that calls a noAPI.
func (s *authServer) settings(early time.Duration) settings {
	return settings{clientID: clientID, tokenURL: s.URL, tokens: &http.Client{Transport: s.transport}, api: newNoAPI(), early: early}
}
