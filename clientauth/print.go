package clientauth

import (
	"fmt"
	"io"
)

// Each method of authentication prints its name and nothing else, with fmt, log/slog
// and encoding/json. The last two call MarshalText. The receivers are values, so that
// this holds for values as well as for pointers.

// Format prints the method's name, whatever the verb.
func (a ClientSecretBasic) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a ClientSecretBasic) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints the method's name, whatever the verb.
func (a ClientSecretPost) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a ClientSecretPost) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints the method's name, whatever the verb.
func (a ClientSecretJWT) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a ClientSecretJWT) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints the method's name, whatever the verb.
func (a PrivateKeyJWT) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a PrivateKeyJWT) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints the method's name, whatever the verb.
func (a Assertion) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a Assertion) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints the method's name, whatever the verb.
func (a TLSClientAuth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a TLSClientAuth) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints the method's name, whatever the verb.
func (a SelfSignedTLSClientAuth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a SelfSignedTLSClientAuth) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// Format prints the method's name, whatever the verb.
func (a identified) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Method()) }

// MarshalText returns the method's name.
func (a identified) MarshalText() ([]byte, error) { return []byte(a.Method()), nil }

// String returns a description of c without its secret.
func (c Credentials) String() string {
	return fmt.Sprintf("clientauth.Credentials{ClientID: %q}", c.ClientID)
}

// Format prints what String returns, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalText returns what String does, for encodings.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// hiddenKey is printed instead of a private key.
const hiddenKey = "[private key]"

// Format prints "[private key]", whatever the verb.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenKey) }

// MarshalText returns "[private key]".
func (k SigningKey) MarshalText() ([]byte, error) { return []byte(hiddenKey), nil }
