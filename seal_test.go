package clientcredentials

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireOpens requires that ring opens sealed under these names as want.
func requireOpens(t *testing.T, ring *Keyring, storeKey, version string, sealed []byte, want string) {
	t.Helper()
	text, err := ring.decrypt(storeKey, version, sealed)
	require.NoError(t, err)
	require.Equal(t, want, string(text))
}

func TestNewKeyring(t *testing.T) {
	for text, keys := range map[string][][]byte{
		"needs a key":              {},
		"key 1 of the Keyring has": {testKey(1)[1:]},
		"key 2 of the Keyring has": {testKey(1), nil},
		"over and over":            {make([]byte, 32)},
	} {
		_, err := NewKeyring(keys...)
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, err, "oauth2: ")
	}
	long, err := NewKeyring(bytes.Repeat([]byte("0123456789"), 10))
	require.NoError(t, err)
	require.Len(t, long.keys, 1)

	// The caller may clear or change the keys afterwards.
	key := testKey(1)
	ring, err := NewKeyring(key)
	require.NoError(t, err)
	clear(key)
	sealed, err := ring.encrypt("key", "version", []byte("text"))
	require.NoError(t, err)
	requireOpens(t, testKeyring(t, 1), "key", "version", sealed, "text")
}

func TestSeal(t *testing.T) {
	ring := testKeyring(t, 1)
	sealed, err := ring.encrypt("key", "version", []byte("text"))
	require.NoError(t, err)
	again, err := ring.encrypt("key", "version", []byte("text"))
	require.NoError(t, err)
	require.NotEqual(t, sealed, again, "each text has its own nonce")
	require.NotContains(t, string(sealed), "text")
	require.Len(t, sealed, 1+keyIDSize+12+len("text")+16)

	for name, other := range map[string]struct {
		ring         *Keyring
		key, version string
		change       func([]byte) []byte
	}{
		"key":            {ring, "kez", "version", nil},
		"version":        {ring, "key", "versioo", nil},
		"note":           {ring, "key", "", nil},
		"moved boundary": {ring, "keyv", "ersion", nil},
		"keyring":        {testKeyring(t, 2), "key", "version", nil},
		"format":         {ring, "key", "version", func(b []byte) []byte { b[0]++; return b }},
		"cut":            {ring, "key", "version", func(b []byte) []byte { return b[:len(b)-1] }},
		"head only":      {ring, "key", "version", func(b []byte) []byte { return b[:1+keyIDSize] }},
		"less":           {ring, "key", "version", func(b []byte) []byte { return b[:keyIDSize] }},
		"longer":         {ring, "key", "version", func(b []byte) []byte { return append(b, 0) }},
	} {
		text := slices.Clone(sealed)
		if other.change != nil {
			text = other.change(text)
		}
		_, err := other.ring.decrypt(other.key, other.version, text)
		require.ErrorIs(t, err, errNotOpened, name)
	}
	for i := range sealed {
		text := slices.Clone(sealed)
		text[i] ^= 1
		_, err := ring.decrypt("key", "version", text)
		require.ErrorIs(t, err, errNotOpened, "bit in byte %d", i)
	}
	for _, numbers := range [][]byte{{1}, {1, 2}, {2, 1}, {3, 2, 1}} {
		requireOpens(t, testKeyring(t, numbers...), "key", "version", sealed, "text")
	}
}

// Later versions open what earlier versions have sealed.
func TestS19_FirstFormat(t *testing.T) {
	requireOpens(t, testKeyring(t, 1), "key", "version", []byte(firstSealed), "text")
}

// firstSealed was sealed by the first version of this package.
const firstSealed = "\x01\x95\xb5\x86\xbe\xe9H\xbf\xd3\v\x84\xb6\x8bl\x1b&\xfb\xae\vr\x10\x01C|KF\xaeSE\xe9\x1da\xc8S6ם\x98\x88\x8b0"

// Whatever is sealed can be opened under the same names, and nothing else can be opened. The
// fuzzer's only honest input is firstSealed: what a test seals is different in each process.
func FuzzOpen(f *testing.F) {
	ring := testKeyring(f, 1, 2)
	second := append([]byte{sealFormat}, ring.keys[1].id[:]...)
	for _, sealed := range [][]byte{[]byte(firstSealed), append(second, firstSealed[len(second):]...), {sealFormat}, nil} {
		f.Add("key", "version", sealed)
	}
	f.Fuzz(func(t *testing.T, storeKey, version string, sealed []byte) {
		if storeKey == "key" && version == "version" && string(sealed) == firstSealed {
			requireOpens(t, ring, storeKey, version, sealed, "text")
		} else {
			text, err := ring.decrypt(storeKey, version, sealed)
			require.ErrorIs(t, err, errNotOpened, "forged: %q", text)
		}
		again, err := ring.encrypt(storeKey, version, sealed)
		require.NoError(t, err)
		requireOpens(t, ring, storeKey, version, again, string(sealed))
	})
}

func TestKeyringShowsNoKey(t *testing.T) {
	ring := testKeyring(t, 'K')
	shared := Seal(nil, ring)
	var text strings.Builder
	for _, v := range []any{ring, *ring, shared, []any{ring, shared}, struct{ R *Keyring }{ring}, struct{ r Keyring }{*ring}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			fmt.Fprintf(&text, verb, v)
		}
		encoded, err := json.Marshal(v)
		require.NoError(t, err)
		text.Write(encoded)
		slog.New(slog.NewTextHandler(&text, nil)).Info("", "v", v)
		slog.New(slog.NewJSONHandler(&text, nil)).Info("", "v", v)
	}
	made, err := hkdf.Key(sha256.New, testKey('K'), nil, "clientcredentials sealing", minKeySize)
	require.NoError(t, err)
	for _, secret := range [][]byte{testKey('K'), made} {
		for _, form := range []string{"%s", "%x", "%X", "%d", "%#v"} {
			require.NotContains(t, text.String(), strings.Trim(fmt.Sprintf(form, secret[:8]), "[]{}"))
		}
	}
	require.Contains(t, text.String(), "1 keys")
}
