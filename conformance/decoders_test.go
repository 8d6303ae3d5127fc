package conformance

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
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
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// The tests in this file put a Config into a program's own structs, and let the common
// decoders of configuration fill them: ours and upstream's must get the same. Then they
// encode both, which must give the same too.

// fromUpstream returns our Config with the fields of upstream's, and no others.
func fromUpstream(conf upstream.Config) clientcredentials.Config {
	return clientcredentials.Config{
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
var ourFields = []string{"ClientAuth", "Grant", "Issuer", "HTTPClient", "EarlyRefresh", "Retry", "Origins", "DPoP", "Store", "Observer", "Strict"}

// settings returns the input of the decoders, with a value that belongs to the program
// under each name of ourFields. name spells a name as the decoder expects it.
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
type nested[C any] struct{ Auth C }

// A squashed program has the settings of the Config among its own. Two of those have the
// name of a field that only ours has. The rest is collected, where the decoder can do
// that.
type squashed[C any] struct {
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
	name      string
	field     func(string) string // how it spells the name of a field by default
	marshal   func(any) ([]byte, error)
	unmarshal func([]byte, any) error
	// strict is unmarshal, but refuses names that it doesn't know.
	strict func([]byte, any) error
	// inlines says that it knows ",inline"; otherwise it flattens embedded structs.
	inlines bool
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
		inlines: true,
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

// requireFilled requires that decode fills a program as wanted.
func requireFilled[P any](t *testing.T, want P, decode func(any) error) {
	t.Helper()
	var got P
	require.NoError(t, decode(&got))
	require.Equal(t, want, got)
}

// fullConfig returns decodedConfig with all fields that only ours has.
func fullConfig() clientcredentials.Config {
	full := fromUpstream(decodedConfig)
	full.ClientAuth = new(clientauth.TLSClientAuth)
	full.Issuer = "https://auth.example"
	full.HTTPClient = http.DefaultClient
	full.EarlyRefresh = time.Minute
	full.Retry.MaxAttempts = 2
	full.Origins = []string{"https://api.example"}
	full.Store = clientcredentials.DangerouslyShareInPlaintext(nil)
	full.Observer = new(clientcredentials.Observer)
	full.Strict = true
	return full
}

func TestP15_Files(t *testing.T) {
	ours, full := fromUpstream(decodedConfig), fullConfig()
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			encode := func(value any) []byte {
				data, err := f.marshal(value)
				require.NoError(t, err)
				return data
			}
			section := encode(map[string]any{f.field("Auth"): settings(f.field)})
			from := func(data []byte) func(any) error { return func(to any) error { return f.unmarshal(data, to) } }
			requireFilled(t, nested[upstream.Config]{decodedConfig}, from(section))
			requireFilled(t, nested[clientcredentials.Config]{ours}, from(section))
			for _, field := range ourFields {
				section := encode(map[string]any{f.field("Auth"): map[string]any{f.field(field): "the program's"}})
				require.Error(t, f.strict(section, new(nested[upstream.Config])))
				require.Error(t, f.strict(section, new(nested[clientcredentials.Config])), "upstream's has no field "+field)
			}
			require.Equal(t, encode(nested[upstream.Config]{decodedConfig}), encode(nested[clientcredentials.Config]{full}))
			pointers := encode(map[string]*clientcredentials.Config{f.field("Auth"): &full})
			requireFilled(t, nested[upstream.Config]{decodedConfig}, from(pointers))

			flat := encode(settings(f.field))
			if !f.inlines {
				theirs := embeddedTheirs{decodedConfig, "the program's", "the program's"}
				requireFilled(t, theirs, from(flat))
				requireFilled(t, embeddedOurs{ours, theirs.Issuer, theirs.Store}, from(flat))
				require.Equal(t, encode(theirs), encode(embeddedOurs{full, theirs.Issuer, theirs.Store}))
				return
			}
			theirs, ours := requireSquashed(t, from(flat))
			ours.Conf = full
			require.Equal(t, encode(theirs), encode(ours))
		})
	}
}

// requireSquashed requires that decode fills a squashed program with ours like one with
// upstream's.
func requireSquashed(t *testing.T, decode func(any) error) (theirs squashed[upstream.Config], ours squashed[clientcredentials.Config]) {
	t.Helper()
	require.NoError(t, decode(&theirs))
	require.Equal(t, decodedConfig, theirs.Conf)
	require.GreaterOrEqual(t, len(theirs.Rest), len(ourFields)-2)
	require.NoError(t, decode(&ours))
	require.Equal(t, squashed[clientcredentials.Config]{fromUpstream(decodedConfig), theirs.Issuer, theirs.Store, theirs.Rest}, ours)
	return theirs, ours
}

func TestP15_Mapstructure(t *testing.T) {
	ours, full := fromUpstream(decodedConfig), fullConfig()
	for name, decode := range map[string]func(from, to any) error{
		"mitchellh/mapstructure": mapstructure.Decode,
		"go-viper/mapstructure":  viper.Decode,
	} {
		t.Run(name, func(t *testing.T) {
			from := func(value any) func(any) error { return func(to any) error { return decode(value, to) } }
			requireSquashed(t, from(settings(asIs)))
			requireFilled(t, nested[clientcredentials.Config]{ours}, from(map[string]any{"auth": settings(strings.ToLower)}))

			var want map[string]any
			require.NoError(t, decode(decodedConfig, &want))
			requireFilled(t, want, from(full))
			requireFilled(t, want, from(&full))
		})
	}
}

func TestP15_Environment(t *testing.T) {
	want := fromUpstream(decodedConfig)
	t.Run("kelseyhightower/envconfig", func(t *testing.T) {
		for name, value := range map[string]string{
			"CLIENTID": "client", "CLIENTSECRET": "secret", "TOKENURL": "https://auth.example/token",
			"SCOPES": "read,write", "ENDPOINTPARAMS": "audience:a", "AUTHSTYLE": "2",
		} {
			t.Setenv("APP_AUTH_"+name, value)
		}
		process := func(to any) error { return envconfig.Process("app", to) }
		requireFilled(t, nested[upstream.Config]{decodedConfig}, process)
		for _, field := range ourFields {
			t.Setenv("APP_AUTH_"+strings.ToUpper(field), "the program's")
		}
		requireFilled(t, nested[*clientcredentials.Config]{&want}, process)
		require.Error(t, envconfig.CheckDisallowed("app", new(nested[upstream.Config])))
		require.Error(t, envconfig.CheckDisallowed("app", new(nested[*clientcredentials.Config])))
	})

	// The next two read the tag env in different ways, and what keeps one of them off a
	// field is an error for the other. Without the tag neither fills anything unless the
	// program asks it to.
	t.Run("sethvargo/go-envconfig", func(t *testing.T) {
		var p struct {
			Auth   *clientcredentials.Config
			Issuer string `env:"ISSUER"`
		}
		lookup := sethvargo.MapLookuper(map[string]string{"ISSUER": "the program's", "CLIENTID": "unused"})
		require.NoError(t, sethvargo.ProcessWith(t.Context(), &sethvargo.Config{Target: &p, Lookuper: lookup}))
		require.Equal(t, "the program's", p.Issuer)
		require.Empty(t, p.Auth.ClientID)

		// It fills nil pointers with empty structs, which are as good as nil.
		require.NotNil(t, p.Auth.Store)
		server := clientcredentialstest.Start(t)
		p.Auth.ClientID, p.Auth.ClientSecret = clientcredentialstest.ClientID, clientcredentialstest.ClientSecret
		p.Auth.TokenURL = server.TokenURL
		_, err := p.Auth.TokenSource(t.Context()).Token()
		require.NoError(t, err)
	})
	t.Run("caarlos0/env", func(t *testing.T) {
		environment := map[string]string{"CLIENT_ID": "client", "TOKEN_URL": "https://auth.example/token", "SCOPES": "read,write", "AUTH_STYLE": "2"}
		for _, byName := range []bool{false, true} {
			options := caarlos.Options{Environment: environment, UseFieldNameByDefault: byName}
			var theirs upstream.Config
			require.NoError(t, caarlos.ParseWithOptions(&theirs, options))
			require.Equal(t, byName, theirs.ClientID == "client")
			requireFilled(t, fromUpstream(theirs), func(to any) error { return caarlos.ParseWithOptions(to, options) })
		}
	})
}

func TestP15_CommandLine(t *testing.T) {
	type program[C any] struct {
		Auth C `embed:"" prefix:"auth-"`
	}
	flags := map[string]bool{}
	parse := func(to any) error {
		parser, err := kong.New(to)
		require.NoError(t, err)
		clear(flags)
		for _, flag := range parser.Model.Flags {
			flags[flag.Name] = true
		}
		_, err = parser.Parse([]string{
			"--auth-client-id=client", "--auth-client-secret=secret", "--auth-token-url=https://auth.example/token",
			"--auth-scopes=read,write", "--auth-endpoint-params=audience=a", "--auth-auth-style=2",
		})
		return err
	}
	requireFilled(t, program[upstream.Config]{decodedConfig}, parse)
	theirs := maps.Clone(flags)
	requireFilled(t, program[clientcredentials.Config]{fromUpstream(decodedConfig)}, parse)
	require.Equal(t, theirs, flags)
}
