package grant

import (
	"fmt"
	"io"
)

// Each type prints its name and nothing else, with fmt, log/slog and encoding/json. The last
// two call MarshalText. The receivers are values, so that this holds for values as well as
// for pointers.

// Format prints the grant's type, whatever the verb.
func (g JWTBearer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, TypeJWTBearer) }

// MarshalText returns the grant's type.
func (g JWTBearer) MarshalText() ([]byte, error) { return []byte(TypeJWTBearer), nil }

// Format prints the grant's type, whatever the verb.
func (g TokenExchange) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, TypeTokenExchange) }

// MarshalText returns the grant's type.
func (g TokenExchange) MarshalText() ([]byte, error) { return []byte(TypeTokenExchange), nil }

// Format prints "grant.SignedJWT", whatever the verb.
func (a SignedJWT) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, signedJWT) }

// MarshalText returns "grant.SignedJWT".
func (a SignedJWT) MarshalText() ([]byte, error) { return []byte(signedJWT), nil }

const signedJWT = "grant.SignedJWT"
