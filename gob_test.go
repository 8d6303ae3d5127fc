package clientcredentials

import (
	"bytes"
	"encoding/gob"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	upstream "golang.org/x/oauth2/clientcredentials"

	"github.com/seed-5bfa0880/clientcredentials/event"
)

// A gobProgram is what programs save: a Config on its own and within other types.
type gobProgram[C any] struct {
	Before  string
	Value   C
	Pointer *C
	Nil     *C
	Slice   []C
	Map     map[string]C
	Nested  struct{ Array [2]*C }
	After   string
}

func newGobProgram[C any](conf C) gobProgram[C] {
	var empty C
	p := gobProgram[C]{
		Before:  "before",
		Value:   conf,
		Pointer: &conf,
		Slice:   []C{empty, conf},
		Map:     map[string]C{"a": conf, "b": empty},
		After:   "after",
	}
	p.Nested.Array = [2]*C{&conf, &empty}
	return p
}

func viaGob[To, From any](t *testing.T, from From) (to To) {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, gob.NewEncoder(&b).Encode(from))
	require.NoError(t, gob.NewDecoder(&b).Decode(&to))
	return to
}

// What upstream's Config encodes, ours decodes, and the other way round. The fields that
// only ours has are left out by upstream.
func TestP13_Gob(t *testing.T) {
	theirs := upstream.Config{
		ClientID:       "client",
		ClientSecret:   "secret",
		TokenURL:       "https://auth.example/token",
		Scopes:         []string{"read", "write"},
		EndpointParams: url.Values{"audience": {"a", "b"}},
		AuthStyle:      oauth2.AuthStyleInHeader,
	}
	plain := Config{
		ClientID:       theirs.ClientID,
		ClientSecret:   theirs.ClientSecret,
		TokenURL:       theirs.TokenURL,
		Scopes:         theirs.Scopes,
		EndpointParams: theirs.EndpointParams,
		AuthStyle:      theirs.AuthStyle,
	}
	used := plain // The library writes to the unexported field.
	used.authStyles()
	full := plain
	full.Issuer = "https://auth.example"
	full.HTTPClient = &http.Client{Timeout: time.Second}
	full.EarlyRefresh = time.Minute
	full.Retry.MaxAttempts = 2
	full.Origins = []string{"https://api.example"}
	full.Store = DangerouslyShareInPlaintext(nil)
	full.Observer = &Observer{Retry: func(event.Retry) {}}
	full.Strict = true

	for name, ours := range map[string]*Config{"six fields": &plain, "used": &used, "all fields": &full} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, theirs, viaGob[upstream.Config](t, ours))
			require.Equal(t, newGobProgram(theirs), viaGob[gobProgram[upstream.Config]](t, newGobProgram(*ours)))
			require.Equal(t, newGobProgram(plain), viaGob[gobProgram[Config]](t, newGobProgram(theirs)))
		})
	}

	decoded := viaGob[Config](t, &full)
	require.Nil(t, decoded.store())
	require.Equal(t, full.Origins, decoded.Origins)
	require.True(t, decoded.Strict)
	require.Equal(t, Config{}, viaGob[struct{ Conf Config }](t, struct{ Conf Config }{}).Conf)
}
