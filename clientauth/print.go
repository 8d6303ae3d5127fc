package clientauth

import (
	"fmt"
	"io"
)

// Printed by fmt, log/slog or encoding/json, a method shows its name and nothing
// else. The receivers are values so that a copy doesn't either. MarshalText is what
// log/slog and encoding/json ask for.

// Format prints what Method returns, whatever the verb.
func (a ClientSecretBasic) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns what Method does.
func (a ClientSecretBasic) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints what Method returns, whatever the verb.
func (a ClientSecretPost) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns what Method does.
func (a ClientSecretPost) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints what Method returns, whatever the verb.
func (a ClientSecretJWT) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns what Method does.
func (a ClientSecretJWT) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints what Method returns, whatever the verb.
func (a PrivateKeyJWT) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns what Method does.
func (a PrivateKeyJWT) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints what Method returns, whatever the verb.
func (a Assertion) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns what Method does.
func (a Assertion) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints what Method returns, whatever the verb.
func (a TLSClientAuth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns what Method does.
func (a TLSClientAuth) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints what Method returns, whatever the verb.
func (a SelfSignedTLSClientAuth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns what Method does.
func (a SelfSignedTLSClientAuth) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

const hiddenKey = "[private key]"

// Format prints "[private key]", whatever the verb.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenKey) }

// MarshalText returns "[private key]".
func (k SigningKey) MarshalText() ([]byte, error) { return []byte(hiddenKey), nil }
