package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
)

// listen listens on an address: that of a loopback interface, or unix: and the path of a
// socket that only this user can use. Anywhere permits other addresses.
func listen(ctx context.Context, address string, anywhere bool) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return listenUnix(ctx, path)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address to listen on; write it like 127.0.0.1:8080 or unix:/run/ccproxy/ccproxy.sock", address)
	}
	if host == "localhost" {
		host = "127.0.0.1" // It must not depend on how the name is resolved.
	}
	if ip := net.ParseIP(host); !anywhere && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%q is not an address of the loopback interface, so that others on the network could use the token; write 127.0.0.1 or [::1], or give the address with -dangerously-listen-on", address)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, errWSAInUse) {
		err = &temporary{fmt.Errorf("%w; choose another address, or end the program that uses it", err)}
	}
	return listener, err
}

// errWSAInUse is EADDRINUSE on Windows, where package syscall has another number for that.
const errWSAInUse = syscall.Errno(10048)

// isAbstract reports whether path names a socket without a file, which Linux has.
func isAbstract(path string) bool {
	return strings.HasPrefix(path, "@") || strings.HasPrefix(path, "\x00")
}

// inFolder returns an address to listen on, in which the path of a socket may be relative to dir.
func inFolder(dir, address string) string {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok || isAbstract(path) {
		return address
	}
	return "unix:" + clientsettings.InFolder(dir, path)
}

// listenUnix makes a socket with mode 0600. It makes the socket in a new folder, where nobody
// can connect to it before it has that mode.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if path == "" || isAbstract(path) {
		return nil, errors.New("unix: must be followed by the path of a socket; sockets without a file have no permissions")
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s exists and is not a socket; choose another path", path)
	default:
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			conn.Close()
			return nil, &temporary{fmt.Errorf("another program listens on %s; end it, or choose another path", path)}
		}
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	temporary := filepath.Join(folder, "s")
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", temporary)
	if err != nil {
		return nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temporary, 0o600), os.Rename(temporary, path)); err != nil {
		listener.Close()
		return nil, err
	}
	socket, _ := os.Lstat(path)
	return &unixListener{listener, path, socket}, nil
}

// A unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path   string
	socket fs.FileInfo // nil: somebody has removed it at once
}

func (l *unixListener) Close() error {
	// Another process may have put its socket there. The number of our file isn't used again
	// before the listener is closed.
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.socket) {
		_ = os.Remove(l.path)
	}
	return l.Listener.Close()
}

// hostsOf returns the values of Host for a listener, and its port.
func hostsOf(listener net.Listener) (hosts map[string]bool, port string) {
	hosts = map[string]bool{"localhost": true}
	if address, ok := listener.Addr().(*net.TCPAddr); ok {
		_, port, _ = net.SplitHostPort(address.String())
		hosts = make(map[string]bool)
		names := []string{"127.0.0.1", "localhost", "::1"}
		if !address.IP.IsUnspecified() {
			names = append(names, address.IP.String())
		}
		for _, name := range names {
			hosts[net.JoinHostPort(name, port)] = true
			if port == "80" {
				hosts[strings.TrimSuffix(net.JoinHostPort(name, ""), ":")] = true
			}
		}
	}
	return hosts, port
}
