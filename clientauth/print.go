package clientauth

import (
	"fmt"
	"io"
	"log/slog"
)

// Printed by fmt, log/slog or encoding/json, a method shows its name and nothing
// else. The receivers are values so that a copy doesn't either. MarshalText is for
// encoding/json, which fails on fields that are functions.

// String returns what Method does.
func (a ClientSecretBasic) String() string { return a.Method() }

// Format prints what Method returns, whatever the verb.
func (a ClientSecretBasic) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// LogValue returns what Method does, for log/slog.
func (a ClientSecretBasic) LogValue() slog.Value { return slog.StringValue(a.Method()) }

// MarshalText returns what Method does.
func (a ClientSecretBasic) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// String returns what Method does.
func (a ClientSecretPost) String() string { return a.Method() }

// Format prints what Method returns, whatever the verb.
func (a ClientSecretPost) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// LogValue returns what Method does, for log/slog.
func (a ClientSecretPost) LogValue() slog.Value { return slog.StringValue(a.Method()) }

// MarshalText returns what Method does.
func (a ClientSecretPost) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// String returns what Method does.
func (a ClientSecretJWT) String() string { return a.Method() }

// Format prints what Method returns, whatever the verb.
func (a ClientSecretJWT) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// LogValue returns what Method does, for log/slog.
func (a ClientSecretJWT) LogValue() slog.Value { return slog.StringValue(a.Method()) }

// MarshalText returns what Method does.
func (a ClientSecretJWT) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// String returns what Method does.
func (a PrivateKeyJWT) String() string { return a.Method() }

// Format prints what Method returns, whatever the verb.
func (a PrivateKeyJWT) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// LogValue returns what Method does, for log/slog.
func (a PrivateKeyJWT) LogValue() slog.Value { return slog.StringValue(a.Method()) }

// MarshalText returns what Method does.
func (a PrivateKeyJWT) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// String returns what Method does.
func (a Assertion) String() string { return a.Method() }

// Format prints what Method returns, whatever the verb.
func (a Assertion) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// LogValue returns what Method does, for log/slog.
func (a Assertion) LogValue() slog.Value { return slog.StringValue(a.Method()) }

// MarshalText returns what Method does.
func (a Assertion) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// String returns what Method does.
func (a TLSClientAuth) String() string { return a.Method() }

// Format prints what Method returns, whatever the verb.
func (a TLSClientAuth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// LogValue returns what Method does, for log/slog.
func (a TLSClientAuth) LogValue() slog.Value { return slog.StringValue(a.Method()) }

// MarshalText returns what Method does.
func (a TLSClientAuth) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// String returns what Method does.
func (a SelfSignedTLSClientAuth) String() string { return a.Method() }

// Format prints what Method returns, whatever the verb.
func (a SelfSignedTLSClientAuth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// LogValue returns what Method does, for log/slog.
func (a SelfSignedTLSClientAuth) LogValue() slog.Value { return slog.StringValue(a.Method()) }

// MarshalText returns what Method does.
func (a SelfSignedTLSClientAuth) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

const hiddenKey = "[private key]"

// String returns "[private key]".
func (k SigningKey) String() string { return hiddenKey }

// Format prints "[private key]", whatever the verb.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenKey) }

// LogValue returns "[private key]", for log/slog.
func (k SigningKey) LogValue() slog.Value { return slog.StringValue(hiddenKey) }

// MarshalText returns "[private key]".
func (k SigningKey) MarshalText() ([]byte, error) { return []byte(hiddenKey), nil }
