package hostile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const (
	plainSecret = "S3cretCanary0123456789"
	oddSecret   = "S3cr/t Can+ry&<x>=\"y'z\\~*%41\u00e4?>\""
)

// TestFind: a form that Find misses would make every test that relies on it worthless. So
// the forms are made by other means here than in Forms.
func TestFind(t *testing.T) {
	for name, write := range map[string]func(s string) string{
		"raw":            func(s string) string { return s },
		"form":           func(s string) string { return url.Values{"client_secret": {s}}.Encode() },
		"form, lower":    func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
		"path":           func(s string) string { return (&url.URL{Path: "/" + s}).EscapedPath() },
		"percent":        func(s string) string { return "%" + strings.ReplaceAll(fmt.Sprintf("% X", s), " ", "%") },
		"percent, lower": func(s string) string { return "%" + strings.ReplaceAll(fmt.Sprintf("% x", s), " ", "%") },
		"Basic":          func(s string) string { return basic("id", s) },
		"Basic, encoded": func(s string) string { return basic("id", url.QueryEscape(s)) },
		"Basic, query":   func(s string) string { return url.QueryEscape(basic("id", s)) },
		"Basic, lower":   func(s string) string { return lowerEscapes(url.QueryEscape(basic("id", s))) },
		"base64":         func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64url":      func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
		"base64 of form": func(s string) string {
			return base64.StdEncoding.EncodeToString([]byte(url.Values{"client_secret": {s}, "scope": {"x"}}.Encode()))
		},
		"JSON": func(s string) string {
			text, err := json.Marshal(map[string]string{"secret": s})
			require.NoError(t, err)
			return string(text)
		},
		"JSON, plain": func(s string) string {
			var text strings.Builder
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(false)
			require.NoError(t, encoder.Encode([]string{s}))
			return text.String()
		},
		"HTML":                func(s string) string { return "<p>" + html.EscapeString(s) },
		"%v":                  func(s string) string { return fmt.Sprintf("%v", struct{ s string }{s}) },
		"%v of bytes":         func(s string) string { return fmt.Sprintf("%v", struct{ s []byte }{[]byte("x" + s + "x")}) },
		"%#v":                 func(s string) string { return fmt.Sprintf("%#v", struct{ s string }{s}) },
		"%#v of bytes":        func(s string) string { return fmt.Sprintf("%#v", []byte("x"+s+"x")) },
		"%q":                  func(s string) string { return fmt.Sprintf("%q", []string{s}) },
		"%q twice":            func(s string) string { return fmt.Sprintf("%q", fmt.Sprintf("%q", s)) },
		"%+q":                 func(s string) string { return fmt.Sprintf("%+q", s) },
		"%x":                  func(s string) string { return fmt.Sprintf("%x", struct{ s string }{s}) },
		"%X":                  func(s string) string { return fmt.Sprintf("%X", s) },
		"%x of Basic, coming": func(s string) string { return fmt.Sprintf("%x", url.Values{"s": {s}}.Encode()) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, secret := range []string{plainSecret, oddSecret} {
				require.NotEmpty(t, Find("before"+write(secret)+"after", secret), "%q in %s", secret, write(secret))
				require.Empty(t, Find("before"+write(strings.ToUpper(secret))+"after", secret))
			}
		})
	}
}

// TestFindInBase64: the secret may begin and end anywhere in the encoded text.
func TestFindInBase64(t *testing.T) {
	for before := range 7 {
		for after := range 4 {
			for name, encoding := range map[string]*base64.Encoding{"std": base64.StdEncoding, "raw": base64.RawStdEncoding, "url": base64.URLEncoding, "raw url": base64.RawURLEncoding} {
				for _, secret := range []string{plainSecret, oddSecret, url.QueryEscape(oddSecret)} {
					text := encoding.EncodeToString([]byte("pqrstuvw"[:before] + secret + "\xff\xff\xff\xff"[:after]))
					require.NotEmpty(t, Find(text, secret), "%s: %d bytes before, %d after", name, before, after)
				}
			}
		}
	}
}

func TestFindWantsALongSecret(t *testing.T) {
	require.Panics(t, func() { Find("text", "short") })
	require.Panics(t, func() { Find("text", "") })
}

func basic(id, secret string) string {
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(id, secret)
	return req.Header.Get("Authorization")
}

var starts = map[string]func(tb testing.TB, answers ...http.Handler) *Server{
	"HTTP": Start, "HTTPS": StartTLS, "HTTP/2": StartHTTP2,
}

func post(t *testing.T, address string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", address+"/path?q=QueryCanary", strings.NewReader("body=BodyCanary"))
	require.NoError(t, err)
	req.SetBasicAuth("id", plainSecret)
	req.Header.Set("X-Odd", "HeaderCanary")
	client := Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// TestServerRecordsEverything: a server records the header, the body and the URL of each
// request.
func TestServerRecordsEverything(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			s := start(t, Text(200, "text/plain", "x"))
			require.Zero(t, s.Connections())
			require.Empty(t, s.Requests())
			require.Empty(t, s.Received())
			for i, address := range []string{s.URL, s.Other} {
				resp, body := post(t, address)
				require.Equal(t, "x", body)
				require.Equal(t, name == "HTTP/2", resp.ProtoMajor == 2)
				require.Equal(t, i+1, s.Connections())
				require.Len(t, s.Requests(), i+1)
				got := s.Requests()[i]
				require.Equal(t, strings.SplitAfter(address, "://")[1], got.Host)
				require.Equal(t, "POST", got.Method)
				require.Equal(t, "/path?q=QueryCanary", got.URI)
				require.Equal(t, "body=BodyCanary", got.Body)
				require.Equal(t, basic("id", plainSecret), got.Header.Get("Authorization"))
			}
			for _, canary := range []string{plainSecret, "QueryCanary", "BodyCanary", "HeaderCanary"} {
				require.NotEmpty(t, s.Find(canary), canary)
			}
			require.Empty(t, s.Find("AnotherCanary"))
		})
	}
}

// TestServerRecordsWhatIsNoRequest: a server records every byte, even if it belongs to no
// request.
func TestServerRecordsWhatIsNoRequest(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.SplitAfter(s.URL, "://")[1])
			require.NoError(t, err)
			writes := []string{plainSecret + "\r\n\r\n"}
			if name == "HTTP" {
				writes = []string{plainSecret[:9], plainSecret[9:] + "\r\n\r\n"} // They may arrive together or separately.
			}
			for _, text := range writes {
				_, err = io.WriteString(conn, text)
				require.NoError(t, err)
			}
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
			require.Equal(t, 1, s.Connections())
			require.Empty(t, s.Requests())
			require.Equal(t, "raw", s.Find(plainSecret))
		})
	}
}

func TestServerRecordsBytesAsTheyCame(t *testing.T) {
	for name, start := range starts {
		if name == "HTTP/2" {
			continue // HTTP/2 compresses header fields.
		}
		s := start(t, Text(200, "text/plain", "x"))
		post(t, s.URL)
		require.Contains(t, string(s.Received()), "\r\nX-Odd: HeaderCanary\r\n", name)
		require.Equal(t, 1, bytes.Count(s.Received(), []byte("BodyCanary")), name)
	}
}

func TestAnswers(t *testing.T) {
	s := Start(t,
		Redirect(307, "https://other.example/x"),
		Redirect(304, "https://other.example/x"),
		Echo(403),
		JSON(200, `{"access_token":"x"}`),
		Raw(func(req *http.Request) string { return "HTTP/1.1 418 " + req.Method + "\r\nContent-Length: 0\r\n\r\n" }))
	for _, status := range []int{307, 304} {
		resp, body := post(t, s.URL)
		require.Equal(t, status, resp.StatusCode)
		require.Equal(t, "https://other.example/x", resp.Header.Get("Location"))
		require.Equal(t, status == 307, strings.Contains(body, StolenToken))
	}
	resp, body := post(t, s.URL)
	require.Equal(t, 403, resp.StatusCode)
	for _, part := range []string{"POST /path?q=QueryCanary HTTP/1.1", basic("id", plainSecret), "body=BodyCanary"} {
		require.Contains(t, body, part)
	}
	resp, body = post(t, s.URL)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	require.JSONEq(t, `{"access_token":"x"}`, body)
	for range 2 { // The last answer is repeated.
		resp, _ = post(t, s.URL)
		require.Equal(t, "418 POST", resp.Status)
	}
	s.Script(Text(200, "text/plain", "y"))
	_, body = post(t, s.URL)
	require.Equal(t, "y", body)
	s.Script()
	resp, _ = post(t, s.URL)
	require.Equal(t, 404, resp.StatusCode)
}

func TestReset(t *testing.T) {
	for name, start := range starts {
		s := start(t, Reset())
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, strings.NewReader("BodyCanary"))
		require.NoError(t, err)
		_, err = Client().Do(req)
		require.Error(t, err, name)
		require.Len(t, s.Requests(), 1, name)
		require.NotEmpty(t, s.Find("BodyCanary"), name)
	}
}
