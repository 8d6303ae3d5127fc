package origin

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

func TestR5_ChainThatCannotBeWalked(t *testing.T) {
	req := httptest.NewRequest("GET", "https://a.example/", nil)
	for _, resp := range []*http.Response{
		{},
		{Request: &http.Request{}},
	} {
		req.Response = resp
		permitted, err := (*Policy)(nil).Permit(req)
		require.NoError(t, err)
		require.False(t, permitted)
	}
	req.Response = &http.Response{Request: req} // An endless chain.
	permitted, err := (*Policy)(nil).Permit(req)
	require.NoError(t, err)
	require.False(t, permitted)
}

// A listed origin is the scheme, the host and the port, and nothing else of the host.
func TestR1_ListedOrigins(t *testing.T) {
	policy := NewPolicy([]string{"https://api.example"})
	for address, want := range map[string]bool{
		"https://api.example/x": true, "https://API.example:443/": true,
		"https://api.example:8443/": false, "http://api.example/": false, "http://api.example:443/": false, "https://x.api.example/": false,
	} {
		permitted, err := policy.Permit(httptest.NewRequest("GET", address, nil))
		require.Equal(t, want, permitted, address)
		require.Equal(t, want, err == nil, address)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"https://api.example.com":       "https://api.example.com:443",
		"HTTPS://API.example.com:8443/": "https://api.example.com:8443",
		"http://[::1]":                  "http://[::1]:80",
		"":                              "",
		"*":                             "",
		"api.example.com":               "",
		"https://":                      "",
		"https://u@api.example.com":     "",
		"https://api.example.com/path":  "",
		"https://api.example.com?q":     "",
		"https://api.example.com#f":     "",
		"https://api.example.com:port":  "",
	} {
		o, err := Parse(text)
		if want == "" {
			require.ErrorContains(t, err, "in Origins is not an origin", text)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, o.String())
	}
}

// FuzzOrigin checks that two addresses have the same origin only if scheme, host and port
// are the same to net/http.
func FuzzOrigin(f *testing.F) {
	for _, pair := range [][2]string{
		{"https://a.example", "https://A.example:443/path?q#f"},
		{"https://a.example", "http://a.example"},
		{"https://a.example", "https://a.example."},
		{"https://a.example", "https://a.example:8443"},
		{"https://a.example", "https://a.example@b.example"},
		{"https://[::1]", "https://[0:0:0:0:0:0:0:1]"},
		{"https://K.example", "https://\u212a.example"},
		{"https://a.example:", "https://a.example:0443"},
		{"https://api.example", "https://ap\u0130.example"},
		{"https://stra\u00dfe.example", "https://stra\u1e9ee.example"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		a, err := url.Parse(first)
		if err != nil || a.Host == "" {
			return
		}
		o := Of(a)
		if again, err := Parse(o.String()); err == nil && !strings.ContainsAny(o.host, "%") {
			require.Equal(t, o, again)
		}
		stripped := *a
		stripped.User, stripped.Path, stripped.RawPath, stripped.RawQuery, stripped.Fragment, stripped.RawFragment = nil, "/", "", "", "", ""
		require.Equal(t, o, Of(&stripped), "only scheme, host and port matter")

		b, err := url.Parse(second)
		if err != nil || b.Host == "" || Of(b) != o {
			return
		}
		require.Equal(t, a.Scheme, b.Scheme)
		require.Equal(t, ascii.Lower(a.Hostname()), ascii.Lower(b.Hostname()))
		port := func(u *url.URL) string {
			if u.Port() == "" {
				return map[string]string{"http": "80", "https": "443"}[u.Scheme]
			}
			return u.Port()
		}
		require.Equal(t, port(a), port(b))
	})
}
