package jws

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUnverifiedClaims(t *testing.T) {
	jwt := func(payload string) string { return "eyJhbGciOiJub25lIn0." + encode([]byte(payload)) + ".c2ln" }
	for payload, want := range map[string]Claims{
		`{"iss":"a","sub":"b","exp":1700000000}`: {Issuer: "a", Subject: "b", Expiry: time.Unix(1700000000, 0)},
		`{"exp":1700000000.9,"x":[1]}`:           {Expiry: time.Unix(1700000000, 0)},
		`{"exp":1.7e9}`:                          {Expiry: time.Unix(1700000000, 0)},
		`{"exp":-5}`:                             {Expiry: time.Unix(0, 0)},
		`{"exp":1e300}`:                          {Expiry: time.Unix(253402300799, 0)},
		`{"exp":null,"iss":null}`:                {},
		`{}`:                                     {},
	} {
		claims, err := UnverifiedClaims(jwt(payload))
		require.NoError(t, err, payload)
		require.Equal(t, want, claims, payload)
	}
	for _, text := range []string{"", "a.b", "a.b.c.d", "a.+.c", jwt(""), jwt("[]"), jwt(`"x"`), jwt(`{"exp":"1700000000"}`), jwt(`{"iss":1}`), jwt(`{"sub":["CANARY"]}`), jwt("{} {}")} {
		_, err := UnverifiedClaims(text)
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "CANARY")
	}
}
