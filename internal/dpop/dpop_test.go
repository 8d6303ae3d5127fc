package dpop

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
)

func TestTargetURL(t *testing.T) {
	for _, test := range []struct{ url, host, want string }{
		{"https://api.example", "", "https://api.example/"},
		{"https://API.example:443/A/b?c#d", "", "https://api.example/A/b"},
		{"http://api.example:80/", "", "http://api.example/"},
		{"https://api.example:80/", "", "https://api.example:80/"},
		{"HTTPS://user:password@api.example:8443/a%2Fb%20c", "", "https://api.example:8443/a%2Fb%20c"},
		{"https://[::1]:443/x", "", "https://[::1]/x"},
		{"https://127.0.0.1:8443/x", "Virtual.example", "https://virtual.example/x"},
		{"https://api.example:/x", "", "https://api.example/x"},
		{"https://[::1]:8443/x", "", "https://[::1]:8443/x"},
		{"http://[fe80::1%25eth0]:8080/x", "", "http://[fe80::1]:8080/x"},
		{"https://[FE80::1%25en0]:443/", "", "https://[fe80::1]/"},
		{"https://127.0.0.1/", "[fe80::1%eth0]", "https://[fe80::1]/"},
		// R8: as net/http sends these hosts, not as Unicode folds them.
		{"https://ap\u0130.example/", "", "https://xn--ap-fpa.example/"},
		{"https://B\u00fccher.example:8443/", "", "https://xn--bcher-kva.example:8443/"},
		{"https://\u212aelvin.example/", "", "https://xn--elvin-r74b.example/"},
		{"https://127.0.0.1/", "stra\u1e9ee.example", "https://xn--strae-301b.example/"},
	} {
		u, err := url.Parse(test.url)
		require.NoError(t, err)
		require.Equal(t, test.want, targetURL(u, test.host), test.url)
	}
}

// R13: a server compares htu with what arrives.
func TestR13_TargetURLOfAnOpaqueURL(t *testing.T) {
	var seen string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		seen = "http://" + req.Host + cmp.Or(req.URL.EscapedPath(), "/")
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, opaque := range []string{"/a%2Fb", "/a/b?c=d", "//" + host + "/a%2Fb", "//virtual.example/a", "//virtual.example", "//virtual.example?c", "/"} {
		u := &url.URL{Scheme: "http", Host: host, Opaque: opaque, RawQuery: "q=1"}
		req := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}
		resp, err := http.DefaultTransport.RoundTrip(req.WithContext(t.Context()))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, seen, targetURL(u, ""), opaque)
	}
}

func TestNonces(t *testing.T) {
	var c Nonces
	server := func(host string) origin.Origin { return origin.Of(&url.URL{Scheme: "https", Host: host}) }
	a, b := server("a"), server("b")
	header := func(nonce string) http.Header { return http.Header{"Dpop-Nonce": {nonce}} }
	require.Empty(t, c.Get(a))
	require.True(t, c.Adopt(a, header("1"), ""))
	require.Equal(t, "1", c.Get(a))
	require.Empty(t, c.Get(b), "the nonce is for the other server")
	require.False(t, c.Adopt(a, header("1"), "1"))
	for _, nonce := range []string{"", " ", "a b", `"`, `\`, "\x00", "é", strings.Repeat("x", maxNonce+1)} {
		require.False(t, c.Adopt(a, header(nonce), "1"), "%q", nonce)
	}
	require.Equal(t, "1", c.Get(a))
	for i := range 3 * maxNonces {
		c.Adopt(server(fmt.Sprint(i)), header("n"), "")
		require.LessOrEqual(t, len(c.of), maxNonces)
	}
}
