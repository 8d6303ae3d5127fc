package jws

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// JWTs have the same identity if they differ only in what each JWT has anew.
func TestG4_UnverifiedIdentity(t *testing.T) {
	identity := func(payload string) string {
		digest, err := UnverifiedIdentity("eyJhbGciOiJub25lIn0." + encode([]byte(payload)) + ".c2ln")
		require.NoError(t, err, payload)
		return digest
	}
	first := identity(`{"iss":"a","sub":"b","exp":1,"jti":"x"}`)
	for _, same := range []string{`{"iss":"a","sub":"b"}`, `{"jti":"y","iss":"a","exp":2,"sub":"b","iat":1,"nbf":1}`} {
		require.Equal(t, first, identity(same), same)
	}
	seen := map[string]bool{first: true}
	for _, other := range []string{
		`{"iss":"a","sub":"c"}`, `{"iss":"b","sub":"b"}`, `{"iss":"a"}`, `{}`, `{"iss":"a","sub":"b","scope":"x"}`, `{"iss":"a","sub":"b","aud":"x"}`,
		`{"iss":"a","sub":"b","sub":"c"}`, `{"iss":"a","sub":"c","sub":"b"}`, `{"iss":"a","sub":"b","JTI":"x"}`, `{"iss":"a","su":"bb"}`,
	} {
		digest := identity(other)
		require.False(t, seen[digest], other)
		seen[digest] = true
	}
	for _, payload := range []string{"", "[]", "{} {}", `"x"`} {
		_, err := UnverifiedIdentity("e30." + encode([]byte(payload)) + ".c2ln")
		require.Error(t, err, payload)
	}
}

func TestUnverifiedClaims(t *testing.T) {
	jwt := func(payload string) string { return "eyJhbGciOiJub25lIn0." + encode([]byte(payload)) + ".c2ln" }
	for payload, want := range map[string]Claims{
		`{"iss":"a","sub":"b","exp":1700000000}`: {Issuer: "a", Subject: "b", Expiry: time.Unix(1700000000, 0)},
		`{"exp":1700000000.9,"x":[1]}`:           {Expiry: time.Unix(1700000000, 0)},
		`{"jti":"j","sub":"b"}`:                  {Subject: "b", ID: "j"},
		`{"exp":1.7e9}`:                          {Expiry: time.Unix(1700000000, 0)},
		`{"exp":-5}`:                             {Expiry: time.Unix(0, 0)},
		`{"exp":1e300}`:                          {Expiry: time.Unix(253402300799, 0)},
		`{"exp":null,"iss":null}`:                {},
		`{"iat":1700000000.9,"nbf":5}`:           {Issued: time.Unix(1700000000, 0)},
		`{"nbf":1700000000}`:                     {Issued: time.Unix(1700000000, 0)},
		`{"iat":"2023","nbf":1700000000}`:        {Issued: time.Unix(1700000000, 0)}, // It isn't needed, so it is no error.
		`{"iat":1e400,"nbf":[1]}`:                {},
		`{"iat":null}`:                           {},
		`{}`:                                     {},
	} {
		claims, err := UnverifiedClaims(jwt(payload))
		require.NoError(t, err, payload)
		require.Equal(t, want, claims, payload)
	}
	for _, text := range []string{"", "a.b", "a.b.c.d", "a.+.c", "a.e30.c c", "a+.e30.c", "+.e30.", "e30.e30.=", "e30.e3\n0.", "e30\r\n.e30.", "e30.e30.c2ln\n", jwt(""), jwt(`{"jti":1}`), jwt("[]"), jwt(`"x"`), jwt(`{"exp":"1700000000"}`), jwt(`{"iss":1}`), jwt(`{"sub":["CANARY"]}`), jwt("{} {}")} {
		_, err := UnverifiedClaims(text)
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "CANARY")
	}
}
