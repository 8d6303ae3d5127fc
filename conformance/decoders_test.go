package conformance

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"
	caarlos "github.com/caarlos0/env/v11"
	viper "github.com/go-viper/mapstructure/v2"
	goccy "github.com/goccy/go-yaml"
	"github.com/kelseyhightower/envconfig"
	"github.com/mitchellh/mapstructure"
	pelletier "github.com/pelletier/go-toml/v2"
	sethvargo "github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	upstream "golang.org/x/oauth2/clientcredentials"
	yaml "gopkg.in/yaml.v3"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// The tests in this file put a Config into a program's own structs, and let the common decoders
// of configuration fill them: ours and upstream's must get the same. Then they encode both, which
// must give the same too.

// anyConfig is the Config, ours or upstream's.
type anyConfig interface {
	clientcredentials.Config | upstream.Config
}

// asUpstream returns the fields of conf that upstream has too.
func asUpstream(conf *clientcredentials.Config) upstream.Config {
	return upstream.Config{
		ClientID:       conf.ClientID,
		ClientSecret:   conf.ClientSecret,
		TokenURL:       conf.TokenURL,
		Scopes:         conf.Scopes,
		EndpointParams: conf.EndpointParams,
		AuthStyle:      conf.AuthStyle,
	}
}

// requireOnlyUpstream fails if a field of ours is set that upstream doesn't have.
func requireOnlyUpstream(t *testing.T, conf *clientcredentials.Config) {
	t.Helper()
	theirs := asUpstream(conf)
	require.Equal(t, *fromUpstream(&theirs), *conf)
}

func fromUpstream(conf *upstream.Config) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:       conf.ClientID,
		ClientSecret:   conf.ClientSecret,
		TokenURL:       conf.TokenURL,
		Scopes:         conf.Scopes,
		EndpointParams: conf.EndpointParams,
		AuthStyle:      conf.AuthStyle,
	}
}

// decodedConfig is what the decoders have to make of their input.
var decodedConfig = upstream.Config{
	ClientID:       "client",
	ClientSecret:   "secret",
	TokenURL:       "https://auth.example/token",
	Scopes:         []string{"read", "write"},
	EndpointParams: url.Values{"audience": {"a"}},
	AuthStyle:      oauth2.AuthStyleInHeader,
}

// ourFields are the names of the fields that only ours has.
var ourFields = []string{"ClientAuth", "Issuer", "HTTPClient", "EarlyRefresh", "Retry", "Origins", "DPoP", "Store", "Observer", "Strict"}

// settings returns the input of the decoders, with a value that belongs to the program under each
// name of ourFields. name spells a name as the decoder expects it.
func settings(name func(string) string) map[string]any {
	m := map[string]any{
		name("ClientID"):       "client",
		name("ClientSecret"):   "secret",
		name("TokenURL"):       "https://auth.example/token",
		name("Scopes"):         []any{"read", "write"},
		name("EndpointParams"): map[string]any{"audience": []any{"a"}},
		name("AuthStyle"):      2,
	}
	for _, field := range ourFields {
		m[name(field)] = "the program's"
	}
	return m
}

func asIs(name string) string { return name }

// A nested program has the Config in a section.
type nested[C anyConfig] struct {
	Auth C
}

// A squashed program has the settings of the Config among its own. Two of those have the name of
// a field that only ours has. The rest is collected, where the decoder can do that.
type squashed[C anyConfig] struct {
	Conf   C              `mapstructure:",squash" yaml:",inline"`
	Issuer string         `yaml:"issuer"`
	Store  string         `yaml:"store"`
	Rest   map[string]any `mapstructure:",remain" yaml:",inline"`
}

// Programs that embed the Config, for decoders that know no squashing.
type (
	embeddedOurs struct {
		clientcredentials.Config
		Issuer, Store string
	}
	embeddedTheirs struct {
		upstream.Config
		Issuer, Store string
	}
)

// A fileFormat is a file format in one implementation.
type fileFormat struct {
	name  string
	field func(string) string // how it spells the name of a field by default
	// marshal and unmarshal are the functions of the implementation.
	marshal   func(any) ([]byte, error)
	unmarshal func([]byte, any) error
	// strict is unmarshal, but refuses names that it doesn't know.
	strict func([]byte, any) error
	// inlines says that it knows ",inline"; otherwise it flattens embedded structs.
	inlines bool
	// collects says that ",inline" of a map collects what no field has.
	collects bool
}

var formats = []fileFormat{
	{
		name: "encoding/json", field: asIs, marshal: json.Marshal, unmarshal: json.Unmarshal,
		strict: func(data []byte, to any) error {
			decoder := json.NewDecoder(bytes.NewReader(data))
			decoder.DisallowUnknownFields()
			return decoder.Decode(to)
		},
	},
	{
		name: "yaml.v3", field: strings.ToLower, marshal: yaml.Marshal, unmarshal: yaml.Unmarshal,
		strict: func(data []byte, to any) error {
			decoder := yaml.NewDecoder(bytes.NewReader(data))
			decoder.KnownFields(true)
			return decoder.Decode(to)
		},
		inlines: true, collects: true,
	},
	{
		name: "goccy/go-yaml", field: strings.ToLower, marshal: goccy.Marshal, unmarshal: goccy.Unmarshal,
		strict:  func(data []byte, to any) error { return goccy.UnmarshalWithOptions(data, to, goccy.Strict()) },
		inlines: true,
	},
	{
		name: "BurntSushi/toml", field: asIs, marshal: toml.Marshal, unmarshal: toml.Unmarshal,
		strict: func(data []byte, to any) error {
			meta, err := toml.Decode(string(data), to)
			if err == nil && len(meta.Undecoded()) > 0 {
				err = toml.ParseError{Message: "unknown"}
			}
			return err
		},
	},
	{
		name: "pelletier/go-toml", field: asIs, marshal: pelletier.Marshal, unmarshal: pelletier.Unmarshal,
		strict: func(data []byte, to any) error {
			return pelletier.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(to)
		},
	},
}

func TestP15_Files(t *testing.T) {
	full := *fromUpstream(&decodedConfig)
	full.ClientAuth = new(clientauth.TLSClientAuth)
	full.Issuer = "https://auth.example"
	full.HTTPClient = http.DefaultClient
	full.EarlyRefresh = time.Minute
	full.Retry.MaxAttempts = 2
	full.Origins = []string{"https://api.example"}
	full.Store = clientcredentials.DangerouslyShareInPlaintext(nil)
	full.Observer = new(clientcredentials.Observer)
	full.Strict = true

	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			input := settings(f.field)
			section, err := f.marshal(map[string]any{f.field("Auth"): input})
			require.NoError(t, err)
			var ours nested[clientcredentials.Config]
			var theirs nested[upstream.Config]
			require.NoError(t, f.unmarshal(section, &theirs))
			require.Equal(t, decodedConfig, theirs.Auth)
			require.NoError(t, f.unmarshal(section, &ours))
			require.Equal(t, decodedConfig, asUpstream(&ours.Auth))
			requireOnlyUpstream(t, &ours.Auth)

			require.Error(t, f.strict(section, new(nested[upstream.Config])))
			for _, field := range ourFields {
				section, err := f.marshal(map[string]any{f.field("Auth"): map[string]any{f.field(field): "the program's"}})
				require.NoError(t, err)
				require.Error(t, f.strict(section, new(nested[clientcredentials.Config])), "upstream's has no field "+field)
			}

			encoded, err := f.marshal(nested[upstream.Config]{decodedConfig})
			require.NoError(t, err)
			again, err := f.marshal(nested[clientcredentials.Config]{full})
			require.NoError(t, err)
			require.Equal(t, string(encoded), string(again))
			require.NoError(t, f.unmarshal(again, &theirs))
			require.Equal(t, decodedConfig, theirs.Auth)
			pointers, err := f.marshal(map[string]*clientcredentials.Config{f.field("Auth"): &full})
			require.NoError(t, err)
			require.NoError(t, f.unmarshal(pointers, &theirs))
			require.Equal(t, decodedConfig, theirs.Auth)

			flat, err := f.marshal(input)
			require.NoError(t, err)
			if f.inlines {
				var ours squashed[clientcredentials.Config]
				var theirs squashed[upstream.Config]
				require.NoError(t, f.unmarshal(flat, &theirs))
				require.Equal(t, decodedConfig, theirs.Conf)
				require.NoError(t, f.unmarshal(flat, &ours))
				require.Equal(t, squashed[clientcredentials.Config]{*fromUpstream(&decodedConfig), theirs.Issuer, theirs.Store, theirs.Rest}, ours)
				if f.collects {
					require.Len(t, ours.Rest, len(ourFields)-2)
				}
				ours.Conf = full
				encoded, err := f.marshal(theirs)
				require.NoError(t, err)
				again, err := f.marshal(ours)
				require.NoError(t, err)
				require.Equal(t, string(encoded), string(again))
				return
			}
			var embedding embeddedOurs
			var embeddingTheirs embeddedTheirs
			require.NoError(t, f.unmarshal(flat, &embeddingTheirs))
			require.Equal(t, embeddedTheirs{decodedConfig, "the program's", "the program's"}, embeddingTheirs)
			require.NoError(t, f.unmarshal(flat, &embedding))
			require.Equal(t, embeddedOurs{*fromUpstream(&decodedConfig), "the program's", "the program's"}, embedding)
			embedding.Config = full
			encoded, err = f.marshal(embeddingTheirs)
			require.NoError(t, err)
			again, err = f.marshal(embedding)
			require.NoError(t, err)
			require.Equal(t, string(encoded), string(again))
		})
	}
}

func TestP15_Mapstructure(t *testing.T) {
	for name, decode := range map[string]func(from, to any) error{
		"mitchellh/mapstructure": mapstructure.Decode,
		"go-viper/mapstructure":  viper.Decode,
	} {
		t.Run(name, func(t *testing.T) {
			var ours squashed[clientcredentials.Config]
			var theirs squashed[upstream.Config]
			require.NoError(t, decode(settings(asIs), &theirs))
			require.Equal(t, decodedConfig, theirs.Conf)
			require.NoError(t, decode(settings(asIs), &ours))
			require.Equal(t, squashed[clientcredentials.Config]{*fromUpstream(&decodedConfig), theirs.Issuer, theirs.Store, theirs.Rest}, ours)
			require.Len(t, ours.Rest, len(ourFields)-2)

			var section nested[clientcredentials.Config]
			require.NoError(t, decode(map[string]any{"auth": settings(strings.ToLower)}, &section))
			require.Equal(t, nested[clientcredentials.Config]{*fromUpstream(&decodedConfig)}, section)

			section.Auth.Store = clientcredentials.DangerouslyShareInPlaintext(nil)
			section.Auth.HTTPClient = http.DefaultClient
			section.Auth.Strict = true
			for _, from := range []any{section.Auth, &section.Auth} {
				var encoded, want map[string]any
				require.NoError(t, decode(decodedConfig, &want))
				require.NoError(t, decode(from, &encoded))
				require.Equal(t, want, encoded)
			}
		})
	}
}

func TestP15_Environment(t *testing.T) {
	variables := map[string]string{
		"CLIENTID":       "client",
		"CLIENTSECRET":   "secret",
		"TOKENURL":       "https://auth.example/token",
		"SCOPES":         "read,write",
		"ENDPOINTPARAMS": "audience:a",
		"AUTHSTYLE":      "2",
	}
	want := fromUpstream(&decodedConfig)

	t.Run("kelseyhightower/envconfig", func(t *testing.T) {
		for name, value := range variables {
			t.Setenv("APP_AUTH_"+name, value)
		}
		var theirs nested[upstream.Config]
		require.NoError(t, envconfig.Process("app", &theirs))
		require.Equal(t, decodedConfig, theirs.Auth)
		var ours struct{ Auth *clientcredentials.Config }
		require.NoError(t, envconfig.Process("app", &ours))
		require.Equal(t, want, ours.Auth)

		for _, field := range ourFields {
			t.Setenv("APP_AUTH_"+strings.ToUpper(field), "the program's")
		}
		require.NoError(t, envconfig.Process("app", &ours))
		require.Equal(t, want, ours.Auth)
		require.Error(t, envconfig.CheckDisallowed("app", &theirs))
		require.Error(t, envconfig.CheckDisallowed("app", &ours))
	})

	// The next two read the tag env in different ways, and what keeps one of them off a field is
	// an error for the other. Without the tag neither fills anything unless the program asks it to.
	t.Run("sethvargo/go-envconfig", func(t *testing.T) {
		type program struct {
			Auth   *clientcredentials.Config
			Issuer string `env:"ISSUER"`
		}
		var p program
		lookup := sethvargo.MapLookuper(map[string]string{"ISSUER": "the program's", "CLIENTID": "unused"})
		require.NoError(t, sethvargo.ProcessWith(t.Context(), &sethvargo.Config{Target: &p, Lookuper: lookup}))
		require.Equal(t, "the program's", p.Issuer)
		require.Equal(t, upstream.Config{}, asUpstream(p.Auth))

		// It fills nil pointers with empty structs, which are as good as nil.
		server := newTokenServer(t)
		p.Auth.ClientID, p.Auth.ClientSecret, p.Auth.TokenURL = "client", "secret", server.URL
		require.NotNil(t, p.Auth.Store)
		token, err := p.Auth.TokenSource(t.Context()).Token()
		require.NoError(t, err)
		require.Equal(t, "t", token.AccessToken)
	})
	t.Run("caarlos0/env", func(t *testing.T) {
		environment := map[string]string{"CLIENT_ID": "client", "CLIENT_SECRET": "secret", "TOKEN_URL": "https://auth.example/token", "SCOPES": "read,write", "AUTH_STYLE": "2"}
		for _, byName := range []bool{false, true} {
			options := caarlos.Options{Environment: environment, UseFieldNameByDefault: byName}
			var theirs upstream.Config
			require.NoError(t, caarlos.ParseWithOptions(&theirs, options))
			require.Equal(t, byName, theirs.ClientID == "client")
			var ours clientcredentials.Config
			require.NoError(t, caarlos.ParseWithOptions(&ours, options))
			require.Equal(t, *fromUpstream(&theirs), ours)
		}
	})
}

func TestP15_CommandLine(t *testing.T) {
	type theirsCLI struct {
		Auth upstream.Config `embed:"" prefix:"auth-"`
	}
	type oursCLI struct {
		Auth clientcredentials.Config `embed:"" prefix:"auth-"`
	}
	flagsOf := func(parser *kong.Kong) []string {
		names := map[string]bool{}
		for _, flag := range parser.Model.Flags {
			names[flag.Name] = true
		}
		return slices.Sorted(maps.Keys(names))
	}
	args := []string{
		"--auth-client-id=client", "--auth-client-secret=secret", "--auth-token-url=https://auth.example/token",
		"--auth-scopes=read,write", "--auth-endpoint-params=audience=a", "--auth-auth-style=2",
	}
	var theirs theirsCLI
	var ours oursCLI
	theirParser, err := kong.New(&theirs)
	require.NoError(t, err)
	ourParser, err := kong.New(&ours)
	require.NoError(t, err)
	require.Equal(t, flagsOf(theirParser), flagsOf(ourParser))
	_, err = theirParser.Parse(args)
	require.NoError(t, err)
	require.Equal(t, decodedConfig, theirs.Auth)
	_, err = ourParser.Parse(args)
	require.NoError(t, err)
	require.Equal(t, *fromUpstream(&decodedConfig), ours.Auth)
}

// newTokenServer returns a token endpoint that issues the token "t".
func newTokenServer(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(server.Close)
	return server
}
