// Package tlsalert recognises the errors with which a peer, or this side, ends a TLS
// handshake.
package tlsalert

import (
	"crypto/tls"
	"errors"
	"net"
)

// Is reports whether err is a TLS alert. Package crypto/tls doesn't export the type of an
// alert that arrives over TCP; net shows it as the operation "remote error", and one that
// this side has sent as "local error".
func Is(err error) bool {
	var alert tls.AlertError // over QUIC
	var operation *net.OpError
	return errors.As(err, &alert) || errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error")
}
