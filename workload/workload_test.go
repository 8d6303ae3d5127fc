package workload

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// rootsOfHostile returns a network whose authorities trust the certificate of hostile servers.
func rootsOfHostile() network {
	return network{roots: hostile.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
}

func TestW1_RequestsAndTokens(t *testing.T) {
	for _, p := range platforms {
		t.Run(p.name, func(t *testing.T) {
			want := lasting(time.Hour)
			server := hostile.Start(t, p.good(want))
			setenv(t, p.env(server.URL))
			token, err := p.source(network{})(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, token)
			require.Len(t, server.Requests(), 1)
			r := server.Requests()[0]
			require.Equal(t, p.request, r.Method+" "+r.URI)
			for name, value := range p.header {
				require.Equal(t, []string{value}, r.Header.Values(name), name)
			}
			require.Empty(t, r.Body)
		})
	}
}

// Without a variable that says otherwise, metadata servers are asked at their fixed addresses.
func TestW1_FixedAddresses(t *testing.T) {
	for name, want := range map[string]string{"Google": "metadata.google.internal:80", "Azure IMDS": "169.254.169.254:80"} {
		for _, p := range platforms {
			if p.name != name {
				continue
			}
			token := lasting(time.Hour)
			server := hostile.Start(t, p.good(token))
			setenv(t, nil)
			var dialed string
			n := network{dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				dialed = addr
				return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(server.URL, "http://"))
			}}
			got, err := p.source(n)(t.Context())
			require.NoError(t, err)
			require.Equal(t, token, got)
			require.Equal(t, want, dialed)
			require.Equal(t, strings.TrimSuffix(want, ":80"), server.Requests()[0].Host)
		}
	}
}

func TestW1_AzureIdentities(t *testing.T) {
	for _, test := range []struct {
		identity              AzureIdentity
		imds, appService, err string
	}{
		{identity: AzureIdentity{ClientID: "a/b"}, imds: "client_id=a%2Fb", appService: "client_id=a%2Fb"},
		{identity: AzureIdentity{ObjectID: "o"}, imds: "object_id=o", appService: "object_id=o"},
		{identity: AzureIdentity{ResourceID: "/s/r"}, imds: "msi_res_id=%2Fs%2Fr", appService: "mi_res_id=%2Fs%2Fr"},
		{identity: AzureIdentity{ClientID: "c", ObjectID: "o"}, err: "more than one ID; set one of them"},
		{identity: AzureIdentity{ClientID: "c", ResourceID: "r"}, err: "more than one ID; set one of them"},
		{identity: AzureIdentity{ClientID: "c", ObjectID: "o", ResourceID: "r"}, err: "more than one ID; set one of them"},
	} {
		for i, p := range []platform{platforms[2], platforms[3]} {
			server := hostile.Start(t, p.good(lasting(time.Hour)))
			setenv(t, p.env(server.URL))
			_, err := AzureManagedIdentity("r", test.identity)(t.Context())
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				require.Empty(t, server.Requests())
				continue
			}
			require.NoError(t, err)
			require.Contains(t, server.Requests()[0].URI, []string{test.imds, test.appService}[i])
		}
	}
}

// Each error says what is missing, and comes before anything is sent.
func TestW2_WhatIsMissing(t *testing.T) {
	gitHub, google, azure := GitHubActions("a"), GoogleMetadata("a"), AzureManagedIdentity("a", AzureIdentity{})
	for _, test := range []struct {
		source clientauth.SecretSource
		env    map[string]string
		err    string
	}{
		{GitHubActions(""), nil, "the audience is empty"},
		{GoogleMetadata(""), nil, "the audience is empty"},
		{AzureManagedIdentity("", AzureIdentity{}), nil, "the audience is empty"},
		{AzurePipelines(""), nil, "the ID of the service connection is empty"},
		{KubernetesToken(""), nil, "the path of the Kubernetes token is empty"},
		{gitHub, nil, `ACTIONS_ID_TOKEN_REQUEST_URL is not set; give the job the permission "id-token: write"`},
		{gitHub, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"}, "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set"},
		{gitHub, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": " \n"}, "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set"},
		{AzurePipelines("a"), nil, "SYSTEM_OIDCREQUESTURI is not set; run this in a job"},
		{AzurePipelines("a"), map[string]string{"SYSTEM_OIDCREQUESTURI": "https://x"}, "SYSTEM_ACCESSTOKEN is not set; set it to $(System.AccessToken)"},
		{azure, map[string]string{"IDENTITY_ENDPOINT": "http://127.0.0.1"}, "IDENTITY_HEADER is not set; IDENTITY_ENDPOINT alone is set on Azure Arc"},
		{azure, map[string]string{"IDENTITY_ENDPOINT": "https://127.0.0.1", "IDENTITY_HEADER": "h", "IDENTITY_SERVER_THUMBPRINT": "t"}, "Service Fabric, which is not supported"},
		{azure, map[string]string{"AZURE_POD_IDENTITY_AUTHORITY_HOST": "127.0.0.1"}, "AZURE_POD_IDENTITY_AUTHORITY_HOST is not an address"},
		{google, map[string]string{"GCE_METADATA_HOST": "http://127.0.0.1"}, "GCE_METADATA_HOST is not a host"},
		{google, map[string]string{"GCE_METADATA_HOST": "127.0.0.1/x"}, "GCE_METADATA_HOST is not a host"},
		{google, map[string]string{"GCE_METADATA_HOST": "a b"}, "the address cannot be used"},
		{google, map[string]string{"GCE_METADATA_HOST": "user:" + requestSecret + "@x"}, "GCE_METADATA_HOST is not a host"},
	} {
		setenv(t, test.env)
		_, err := test.source(t.Context())
		require.ErrorContains(t, err, test.err)
		require.Empty(t, hostile.Find(surfaces(err), requestSecret))
	}
}

// A metadata server that isn't there is found out within seconds.
func TestW2_OutsideThePlatform(t *testing.T) {
	dialing := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for name, test := range map[string]struct {
		err   error
		dials int
		takes time.Duration
	}{
		"unknown name": {errUnknown, 1, 0},
		"refused":      {dialing(os.NewSyscallError("connect", syscall.Errno(111))), 3, 3 * time.Second},
		"no route":     {dialing(os.NewSyscallError("connect", syscall.Errno(113))), 3, 3 * time.Second},
		"lost packets": {dialing(os.ErrDeadlineExceeded), 1, 0},
	} {
		for _, p := range platforms[1:3] {
			t.Run(name+"/"+p.name, func(t *testing.T) {
				setenv(t, nil)
				testkit.Bubble(t, func(t *testing.T) {
					n, dials := failing(test.err)
					start := time.Now()
					_, err := p.source(n)(t.Context())
					require.ErrorIs(t, err, test.err)
					require.NotContains(t, err.Error(), "Get ", "the address appears once")
					require.ErrorContains(t, err, "; this source works on ")
					require.Equal(t, test.takes, time.Since(start))
					require.Equal(t, test.dials, *dials)
					requireNoQuery(t, err)
				})
			})
		}
	}
}

// Nothing but a JWT is taken from an answer.
func TestW3_AnswersWithoutAToken(t *testing.T) {
	const page = "<!DOCTYPE html><html><body>Sign in</body></html>"
	good := lasting(time.Hour)
	for _, p := range platforms {
		mediaType, body := p.answer(good)
		answers := map[string]struct {
			body, err string
		}{
			"page":           {page, "the answer "},
			"empty":          {"", "the answer "},
			"another object": {`{"message":"hello"}`, "the answer "},
			"not a JWT":      {strings.Replace(body, good, "opaque", 1), "it is not a JWT"},
			"part of a JWT":  {strings.Replace(body, good, good[:strings.LastIndex(good, ".")], 1), "it is not a JWT"},
			"two JWTs":       {strings.Replace(body, good, good+" "+good, 1), "it is not a JWT"},
			"line break":     {strings.Replace(body, good, good[:9]+"\n"+good[9:], 1), "the answer "},
			"escaped break":  {strings.Replace(body, good, good[:9]+`\n`+good[9:], 1), "it is not a JWT"},
			"huge":           {strings.Replace(body, good, good+strings.Repeat("A", 64<<10), 1), "is larger than 64 KiB"},
			"large":          {strings.Replace(body, good, strings.Repeat("A", 60<<10), 1), "it is not a JWT"},
		}
		if mediaType == "application/json" {
			for name, member := range map[string]string{"null": "null", "a number": "1", "an object": "{}"} {
				answers[name] = struct{ body, err string }{strings.Replace(body, `"`+good+`"`, member, 1), "the answer has no "}
			}
			members := strings.Trim(body, "{}")
			answers["twice"] = struct{ body, err string }{"{" + members + "," + members + "}", "appears more than once"}
			answers["other letter case"] = struct{ body, err string }{strings.NewReplacer("value", "Value", "access_token", "Access_token", "oidcToken", "oidctoken").Replace(body), "the answer has no "}
			answers["followed by more"] = struct{ body, err string }{body + body, "something follows it"}
		}
		for name, answer := range answers {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				server := hostile.Start(t, p.says(http.StatusOK, mediaType, answer.body))
				setenv(t, p.env(server.URL))
				token, err := p.source(network{})(t.Context())
				require.ErrorContains(t, err, answer.err)
				require.Empty(t, token)
				require.Len(t, server.Requests(), 1)
				require.Empty(t, hostile.Find(surfaces(err), good))
				require.NotContains(t, surfaces(err), "Sign in")
				requireNoQuery(t, err)
			})
		}
	}
}

// After 101 a connection is open without end.
func TestW3_SwitchingProtocols(t *testing.T) {
	for _, p := range platforms {
		server := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\nMetadata-Flavor: Google\r\n\r\n")
			_, _ = conn.Read(make([]byte, 1)) // Until the client closes the connection.
		}))
		setenv(t, p.env(server.URL))
		_, err := p.source(network{})(t.Context())
		require.ErrorContains(t, err, "answered 101")
	}
}

// A machine that isn't on Google Cloud may reach another server under that address.
func TestW3_AnotherMetadataServer(t *testing.T) {
	for _, flavor := range []string{"", "google", "Amazon"} {
		server := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Metadata-Flavor", flavor)
			_, _ = io.WriteString(w, lasting(time.Hour))
		}))
		setenv(t, platforms[1].env(server.URL))
		_, err := GoogleMetadata(audience)(t.Context())
		require.ErrorContains(t, err, "not from a metadata server of Google: Metadata-Flavor is missing; this source works on Google Cloud only")
	}
}

// The credentials in a request are for one server, and a token from another one isn't taken.
func TestW3_RedirectsAreNotFollowed(t *testing.T) {
	for _, p := range platforms {
		for _, status := range []int{301, 302, 303, 307, 308} {
			target := hostile.Start(t, p.good(lasting(time.Hour)))
			server := hostile.Start(t, p.with(hostile.Redirect(status, target.URL+"/?"+url.QueryEscape(requestSecret))))
			setenv(t, p.env(server.URL))
			_, err := p.source(network{})(t.Context())
			require.ErrorContains(t, err, fmt.Sprint(status)+", a redirect, which is not followed")
			require.Empty(t, hostile.Find(surfaces(err), requestSecret))
			require.Zero(t, target.Connections())
			require.Len(t, server.Requests(), 1)
		}
	}
}

// What a status says goes into the error, with what to do.
func TestW4_Refusals(t *testing.T) {
	long := strings.Repeat("long ", 1000)
	for _, test := range []struct {
		platform        int
		status          int
		mediaType, body string
		err             string
	}{
		{0, 401, "application/json", `{"message":"Bad credentials"}`, `answered 401: it says message: Bad credentials`},
		{1, 404, "text/plain", "Service account not found", `answered 404: it says "Service account not found"; attach a service account to the workload`},
		{1, 400, "text/html", "<html><title>Error 400</title>non-empty audience parameter required</html>", "answered 400"},
		{2, 400, "application/json", `{"error":"invalid_request","error_description":"Identity not found"}`, `answered 400: "invalid_request" Identity not found; assign the managed identity`},
		{3, 400, "application/json", `{"statusCode":400,"message":"Unable to load the proper Managed Identity."}`, "message: Unable to load the proper Managed Identity.; assign the managed identity to this app"},
		{4, 401, "text/html", "<html>Sign in</html>", "answered 401; set SYSTEM_ACCESSTOKEN to $(System.AccessToken) under env of the step"},
		{4, 203, "text/html", "<html>Sign in</html>", "answered 203; set SYSTEM_ACCESSTOKEN to $(System.AccessToken) under env of the step"},
		{4, 404, "application/json", `{"$id":"1","innerException":null,"message":"No service connection found","typeKey":"x","errorCode":0}`, "message: No service connection found"},
		{0, 400, "application/json", `{"message":"bad\n\u001b[2J\u202e news"}`, "message: bad \ufffd[2J\ufffd news"},
		{0, 400, "application/json", `{"message":"` + long + `"}`, "long long"},
	} {
		p := platforms[test.platform]
		server := hostile.Start(t, p.says(test.status, test.mediaType, test.body))
		setenv(t, p.env(server.URL))
		_, err := p.source(network{})(t.Context())
		require.ErrorContains(t, err, test.err)
		require.Less(t, len(err.Error()), 700)
		require.NotContains(t, err.Error(), "html")
		requireNoQuery(t, err)
		require.Len(t, server.Requests(), 1)
	}
}

// Statuses that the platforms document as temporary are tried again, with pauses.
func TestW4_Retries(t *testing.T) {
	for _, test := range []struct {
		platform int
		statuses []int
		requests int // of statuses that stay
	}{
		{0, []int{403, 429, 500, 502, 503}, 4},
		{0, []int{400, 401, 404, 501}, 1},
		{1, []int{429, 500, 503}, 4},
		{1, []int{400, 403, 404}, 1},
		{2, []int{404, 410, 429, 500, 503}, 4},
		{2, []int{400, 401, 403, 405}, 1},
		{3, []int{429, 500, 503}, 4},
		{3, []int{400, 401, 404}, 1},
		{4, []int{429, 500, 503}, 4},
		{4, []int{400, 401, 403, 404, 203}, 1},
	} {
		p := platforms[test.platform]
		setenv(t, p.env("http://127.0.0.1"))
		for _, status := range test.statuses {
			t.Run(fmt.Sprint(p.name, "/", status), func(t *testing.T) {
				testkit.Bubble(t, func(t *testing.T) {
					var at []time.Duration
					start, failures := time.Now(), 100
					n, stop := inMemory(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						at = append(at, time.Since(start))
						if failures--; failures >= 0 {
							p.says(status, "text/plain", "").ServeHTTP(w, r)
							return
						}
						p.good(lasting(time.Hour)).ServeHTTP(w, r)
					}))
					defer stop()
					_, err := p.source(n)(t.Context())
					require.ErrorContains(t, err, fmt.Sprint("answered ", status))
					require.Equal(t, []time.Duration{0, 1e9, 3e9, 7e9}[:test.requests], at)
					if test.requests > 1 {
						start, failures, at = time.Now(), 2, nil
						_, err = p.source(n)(t.Context())
						require.NoError(t, err)
						require.Len(t, at, 3)
					}
				})
			})
		}
	}
}

// A server that hangs is given up before the attempt at a token is.
func TestW4_SlowServers(t *testing.T) {
	for _, p := range platforms {
		setenv(t, p.env("http://127.0.0.1"))
		for name, slow := range map[string]func(w http.ResponseWriter, r *http.Request){
			"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"no end": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			},
			"trickle": func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					_, _ = w.Write([]byte(" "))
					_ = http.NewResponseController(w).Flush()
					time.Sleep(time.Second)
				}
			},
		} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				testkit.Bubble(t, func(t *testing.T) {
					n, stop := inMemory(p.with(http.HandlerFunc(slow)))
					defer stop()
					start := time.Now()
					_, err := p.source(n)(t.Context())
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, totalTimeout, time.Since(start))
					requireNoQuery(t, err)
				})
			})
		}
	}
}

// Only requests to servers on the internet may go through a proxy.
func TestW5_Proxies(t *testing.T) {
	secure, plain := &url.URL{Scheme: "https", Host: "api.example"}, &url.URL{Scheme: "http", Host: "api.example"}
	require.Nil(t, network{}.transport(&request{url: secure}).Proxy)
	require.Nil(t, network{}.transport(&request{url: plain, proxied: true}).Proxy)
	require.NotNil(t, network{}.transport(&request{url: secure, proxied: true}).Proxy)

	// The environment names a proxy: see TestMain.
	for _, test := range []struct {
		platform int
		origin   string
		want     string
	}{
		{0, "https://actions.example", "127.0.0.1:9"},
		{1, "http://metadata.example", "metadata.example:80"},
		{2, "http://imds.example", "imds.example:80"},
		{2, "https://imds.example", "imds.example:443"},
		{3, "http://10.1.2.3", "10.1.2.3:80"},
		{3, "https://app.example", "app.example:443"},
		{4, "https://azure.example", "127.0.0.1:9"},
	} {
		p := platforms[test.platform]
		setenv(t, p.env(test.origin))
		var dialed string
		_, err := p.source(network{dial: func(_ context.Context, _, addr string) (net.Conn, error) {
			dialed = addr
			return nil, errUnknown
		}})(t.Context())
		require.ErrorIs(t, err, errUnknown)
		require.Equal(t, test.want, dialed)
	}
}

// A credential is never sent where others could read it.
func TestW6_Cleartext(t *testing.T) {
	const (
		refused = "others could read the credential that is sent there; use https"
		odd     = "is not an address that begins with https://"
	)
	for _, test := range []struct {
		origin string
		errs   [3]string // GitHub Actions, App Service, Azure Pipelines
	}{
		{"http://api.example", [3]string{refused, refused, refused}},
		{"http://93.184.216.34", [3]string{refused, refused, refused}},
		{"HTTP://api.example", [3]string{refused, refused, refused}},
		{"http://localhost.example", [3]string{refused, refused, refused}},
		{"http://169.254.1.2", [3]string{refused, "", refused}},
		{"http://172.16.0.2:8081", [3]string{refused, "", refused}},
		{"http://[fe80::1]", [3]string{refused, "", refused}},
		{"http://localhost:1", [3]string{"", "", ""}},
		{"http://127.1.2.3:1", [3]string{"", "", ""}},
		{"http://[::1]:1", [3]string{"", "", ""}},
		{"https://api.example", [3]string{"", "", ""}},
		{"ftp://api.example", [3]string{odd, odd, odd}},
		{"//api.example", [3]string{odd, odd, odd}},
		{"https:", [3]string{odd, odd, odd}},
		{"https://api example\x7f" + requestSecret, [3]string{odd, odd, odd}},
		{"api.example", [3]string{odd, odd, odd}},
	} {
		for i, p := range []platform{platforms[0], platforms[3], platforms[4]} {
			setenv(t, p.env(test.origin))
			n, dials := failing(errUnknown)
			_, err := p.source(n)(t.Context())
			if test.errs[i] == "" {
				require.ErrorIs(t, err, errUnknown, "%s: %s", p.name, test.origin)
				continue
			}
			require.ErrorContains(t, err, test.errs[i], "%s: %s", p.name, test.origin)
			require.Zero(t, *dials)
			require.Empty(t, hostile.Find(surfaces(err), requestSecret))
		}
	}
}

// https is verified like everywhere else.
func TestW6_TLS(t *testing.T) {
	for _, p := range []platform{platforms[0], platforms[4]} {
		want := lasting(time.Hour)
		server := hostile.StartTLS(t, p.good(want))
		setenv(t, p.env(server.URL))
		token, err := p.source(rootsOfHostile())(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, token)

		_, err = p.source(network{})(t.Context())
		require.ErrorContains(t, err, "certificate signed by unknown authority")
		require.Len(t, server.Requests(), 1)
		require.Empty(t, server.Find("not there at all"))
	}
}

// Whatever a server repeats, no error shows a credential or a token.
func TestW9_NoSecretIsShown(t *testing.T) {
	token := lasting(time.Hour)
	for _, p := range platforms {
		for name, answer := range map[string]http.Handler{
			"page":          hostile.Echo(400),
			"page, success": hostile.Echo(200),
			"text":          echo(400, "text/plain", "%s"),
			"message":       echo(400, "application/json", `{"message":%q}`),
			"description":   echo(400, "application/json", `{"error":"x","error_description":%q}`),
			"code":          echo(400, "application/json", `{"error":%q}`),
			"header": hostile.Raw(func(r *http.Request) string {
				return "HTTP/1.1 " + r.Header.Get("Authorization") + r.Header.Get("X-Identity-Header") + "\r\n\r\n"
			}),
			"malformed": hostile.Raw(func(r *http.Request) string {
				return r.Header.Get("Authorization") + r.Header.Get("X-Identity-Header") + "\r\n"
			}),
			"field": hostile.Raw(func(r *http.Request) string {
				return "HTTP/1.1 200 OK\r\n" + r.Header.Get("Authorization") + "\r\n\r\n"
			}),
			"token, described": p.says(400, "application/json", `{"error":"x","error_description":"see `+token+`, and ask"}`),
			"token, coded":     p.says(400, "application/json", `{"error":"`+token+`"}`),
			"token, malformed": hostile.Raw(func(*http.Request) string { return "HTTP/1.1 " + token + "\r\n\r\n" }),
			"token, refused":   p.says(400, "application/json", `{"message":"`+token+`"}`),
			"token, cut":       p.says(200, "application/json", `{"value":"`+token+`"`),
			"token, odd":       p.says(200, "application/json", `{"other":"`+token+`"}`),
		} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				server := hostile.Start(t, p.with(answer))
				setenv(t, p.env(server.URL))
				source := p.source(network{})
				_, err := source(t.Context())
				require.Error(t, err)
				for _, secret := range []string{requestSecret, token, "canary-of-the-signature"} {
					require.Empty(t, hostile.Find(surfaces(err), secret), err)
					require.Empty(t, hostile.Find(surfaces(source), secret))
				}
				if p.secret {
					require.NotEmpty(t, server.Find(requestSecret))
				}
			})
		}
	}
}

// echo answers with the credentials of the request, and with all of its header.
func echo(status int, mediaType, format string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := fmt.Sprintf("you sent %s %s and %v", r.Header.Get("Authorization"), r.Header.Get("X-Identity-Header"), r.Header)
		hostile.Text(status, mediaType, fmt.Sprintf(format, text)).ServeHTTP(w, r)
	})
}

// The environment is read at each call.
func TestW2_EnvironmentThatIsSetLater(t *testing.T) {
	for _, p := range platforms {
		setenv(t, map[string]string{"IDENTITY_ENDPOINT": "nowhere", "GCE_METADATA_HOST": "/"})
		source := p.source(network{})
		_, err := source(t.Context())
		require.Error(t, err)
		server := hostile.Start(t, p.good(lasting(time.Hour)))
		setenv(t, p.env(server.URL))
		_, err = source(t.Context())
		require.NoError(t, err)
	}
}
