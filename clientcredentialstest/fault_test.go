package clientcredentialstest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// link is a way to reach an authorization server with one client.
type link struct {
	name   string
	auth   *cct.AuthorizationServer
	client *http.Client
	url    string
}

// links returns one link of each kind. A fault looks the same over all of them.
func links(t *testing.T) []link {
	clients := []cct.Client{{ID: "id", Secret: "secret"}}
	auth := &cct.AuthorizationServer{Clients: clients}
	plain, tls := cct.NewServer(clients...), cct.NewTLSServer(clients...)
	t.Cleanup(plain.Close)
	t.Cleanup(tls.Close)
	return []link{
		{"memory", auth, &http.Client{Transport: cct.HandlerTransport(auth)}, tokenURL},
		{"http", plain.Auth, plain.Client(), plain.TokenURL},
		{"https", tls.Auth, tls.Client(), tls.TokenURL},
	}
}

// do sends a good token request and returns the answer, with its body.
func (l link) do(t *testing.T) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.url, strings.NewReader(grant))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("id", "secret")
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func TestFaultAnswers(t *testing.T) {
	scripted := func(code string) string { return `{"error":"` + code + `","error_description":"scripted fault"}` }
	header := http.Header{"X-Test": {"a", "b"}, "Cache-Control": nil}
	for _, test := range []struct {
		name   string
		fault  cct.Fault
		status int
		header http.Header
		body   string // "token": a token response
	}{
		{"Unavailable", cct.Unavailable(), 503, nil, scripted("temporarily_unavailable")},
		{"TooManyRequests", cct.TooManyRequests(1500 * time.Millisecond), 429, http.Header{"Retry-After": {"2"}}, scripted("temporarily_unavailable")},
		{"TooManyRequests without a time", cct.TooManyRequests(0), 429, http.Header{"Retry-After": nil}, scripted("temporarily_unavailable")},
		{"InvalidClient", cct.InvalidClient(), 401, http.Header{"Www-Authenticate": {`Basic realm="clientcredentialstest"`}}, scripted("invalid_client")},
		{"bad gateway", cct.Fault{Status: 502}, 502, nil, scripted("server_error")},
		{"bad request", cct.Fault{Status: 400}, 400, nil, scripted("invalid_request")},
		{"page", cct.Fault{Status: 500, Body: "<html>", Header: http.Header{"content-type": {"text/html"}}}, 500, http.Header{"Content-Type": {"text/html"}}, "<html>"},
		{"body", cct.Fault{Body: `{"access_token":1}`}, 200, http.Header{"Cache-Control": {"no-store"}}, `{"access_token":1}`},
		{"empty", cct.Fault{Status: 200}, 200, http.Header{"Content-Length": {"0"}}, ""},
		{"no content", cct.Fault{Status: 204, Body: "x"}, 204, nil, ""},
		{"header on a token", cct.Fault{Header: header}, 200, header, "token"},
		{"drip on a token", cct.Fault{Drip: 1}, 200, nil, "token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := links(t)[0]
			l.auth.Script(test.fault)
			resp, body, err := l.do(t)
			require.NoError(t, err)
			require.Equal(t, test.status, resp.StatusCode)
			for name, values := range test.header {
				require.Equal(t, values, resp.Header[name])
			}
			if test.body == "token" {
				require.Contains(t, body, `"access_token":"`)
				require.Equal(t, 1, l.auth.TokensIssued())
			} else {
				require.Equal(t, test.body, body)
				require.Zero(t, l.auth.TokensIssued())
			}
		})
	}
}

func TestFaultBreaksConnection(t *testing.T) {
	for _, l := range links(t) {
		t.Run(l.name, func(t *testing.T) {
			l.auth.Script(cct.ConnectionReset())
			_, _, err := l.do(t)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			require.Equal(t, 1, l.auth.TokenRequests(), "the request is read before the reset")
			require.Zero(t, l.auth.TokensIssued())

			for after, want := range map[int]string{3: "012", -1: ""} {
				l.auth.Script(cct.Fault{Body: "0123456789", CloseAfter: after})
				resp, body, err := l.do(t)
				require.Equal(t, want, body)
				require.EqualValues(t, 10, resp.ContentLength)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			}
		})
	}
}

func TestConnectionResetOverHTTP2(t *testing.T) {
	auth := new(cct.AuthorizationServer)
	srv := httptest.NewUnstartedServer(auth)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	auth.Script(cct.ConnectionReset(), cct.Fault{Status: http.StatusTeapot})
	l := link{client: srv.Client(), url: srv.URL + "/token"}
	_, _, err := l.do(t)
	require.ErrorContains(t, err, "stream error")
	resp, _, err := l.do(t)
	require.NoError(t, err)
	require.Equal(t, 2, resp.ProtoMajor)
	require.Equal(t, 2, auth.TokenRequests())
}

func TestScriptGoesBeforeOutage(t *testing.T) {
	auth := newAuth()
	status := func() int { return send(t, auth, post(t, "id", "secret", grant)).status }
	auth.SetFault(&cct.Fault{Status: 502})
	auth.Script(cct.Unavailable(), cct.Fault{})
	require.Equal(t, []int{503, 200, 502, 502}, []int{status(), status(), status(), status()})
	auth.SetFault(nil)
	require.Equal(t, 200, status())
}

func TestFaultDoesNotHideViolation(t *testing.T) {
	auth := newAuth()
	auth.Script(cct.Unavailable())
	require.Equal(t, 503, send(t, auth, post(t, "", "", grant+"&scope=a&scope=b")).status)
	require.Len(t, auth.Violations(), 1)
}

func TestFaultTakesTime(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		auth := newAuth()
		auth.Latency = time.Second
		l := link{auth: auth, client: &http.Client{Transport: cct.HandlerTransport(auth)}, url: tokenURL}
		for _, test := range []struct {
			fault   cct.Fault
			timeout time.Duration // a client that gives up ends the handler at once
			err     error
			body    string
			took    time.Duration
		}{
			{cct.Fault{Delay: time.Minute}, 0, nil, `"access_token":"`, time.Minute + time.Second},
			{cct.Fault{Delay: time.Minute, Body: "0123456789", Drip: time.Hour}, 0, nil, "0123456789", time.Minute + time.Second + 10*time.Hour},
			{cct.Fault{Delay: time.Minute, Reset: true}, 0, syscall.ECONNRESET, "", time.Minute + time.Second},
			{cct.Fault{Delay: time.Hour}, 2 * time.Second, context.DeadlineExceeded, "", 2 * time.Second},
			{cct.Fault{Drip: time.Hour}, 2 * time.Second, context.DeadlineExceeded, "", 2 * time.Second},
		} {
			auth.Script(test.fault)
			l.client.Timeout = test.timeout
			start := time.Now()
			_, body, err := l.do(t)
			require.ErrorIs(t, err, test.err)
			require.Contains(t, body, test.body)
			require.Equal(t, test.took, time.Since(start))
		}
	})
}
