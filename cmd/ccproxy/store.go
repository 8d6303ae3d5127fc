package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
	"github.com/seed-5bfa0880/clientcredentials/redisstore"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// storeSettings say through which Redis tokens are shared with other processes of ccproxy.
type storeSettings struct {
	address      string // as in the file
	passwordFile string // empty: no password
	caFile       string // empty: the certification authorities of the system
	keyFiles     []string

	options redis.Options // what address says
}

// store reads where tokens are shared. Paths are relative to dir.
func (o *object) store(dir string) *storeSettings {
	s := &storeSettings{
		address:      o.text("redis"),
		passwordFile: clientsettings.InFolder(dir, o.text("password_file")),
		caFile:       clientsettings.InFolder(dir, o.text("ca_file")),
		keyFiles:     o.texts("key_files"),
	}
	for i, file := range s.keyFiles {
		s.keyFiles[i] = clientsettings.InFolder(dir, file)
	}
	o.done()
	var ok bool
	s.options, ok = redisOptions(s.address, dir)
	switch {
	case !ok:
		o.fail("redis", "must be an address without a password, such as rediss://ccproxy@redis.example.com:6379/0 or unix:/run/redis/redis.sock; put the password into a file, and name that with password_file")
	case s.options.Username != "" && s.passwordFile == "":
		o.fail("redis", "has a user name, but there is no password; put it into a file, and name that with password_file")
	case s.caFile != "" && s.options.TLSConfig == nil:
		o.fail("ca_file", "is for TLS; begin the address in redis with rediss:")
	case len(s.keyFiles) == 0:
		o.document.fail(o.path, "there is no key to encrypt the tokens with; make one with openssl rand -out FILE 32, give it to each ccproxy, and name it with key_files")
	}
	return s
}

// redisOptions returns how to connect to the Redis at an address. It returns false if the address
// can't be used. An address has no parameters: one of those that go-redis knows turns off the
// check of the server's certificate.
func redisOptions(address, dir string) (options redis.Options, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return options, false
	}
	if _, hasPassword := u.User.Password(); hasPassword {
		return options, false
	}
	options.Username = u.User.Username()
	switch u.Scheme {
	case "unix":
		path := cmp.Or(u.Path, u.Opaque)
		options.Network, options.Addr = "unix", clientsettings.InFolder(dir, path)
		return options, path != "" && u.Host == ""
	case "rediss":
		options.TLSConfig = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	case "redis":
	default:
		return options, false
	}
	options.Network, options.Addr = "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6379"))
	database := strings.Trim(u.Path, "/")
	options.DB, err = strconv.Atoi(cmp.Or(database, "0"))
	return options, u.Hostname() != "" && err == nil && options.DB >= 0
}

// fingerprint returns what distinguishes the settings from others, together with the files that
// are read only once. Nil: there is no store.
func (s *storeSettings) fingerprint() [sha256.Size]byte {
	if s == nil {
		return [sha256.Size]byte{}
	}
	return fingerprint([]any{s.address, s.passwordFile, s.caFile, s.keyFiles}, append([]string{s.caFile}, s.keyFiles...)...)
}

// A store shares the tokens of all clients with other processes of ccproxy. Its methods also work
// on nil, which is no store.
type store struct {
	fingerprint [sha256.Size]byte
	client      *redis.Client
	shared      *clientcredentials.SharedStore
	failing     atomic.Bool // the last call failed
}

// newStore returns the store that the settings describe. It reads their files, but doesn't
// connect: a Redis that is down is no reason not to start.
func newStore(ctx context.Context, s *storeSettings) (*store, error) {
	keys := make([][]byte, len(s.keyFiles))
	for i, file := range s.keyFiles {
		var err error
		if keys[i], err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("key_files: %w", err)
		}
	}
	keyring, err := clientcredentials.NewKeyring(keys...)
	if err != nil {
		return nil, fmt.Errorf("key_files: %w", err)
	}
	options := s.options
	options.ContextTimeoutEnabled = true
	options.DialerRetries = 1 // A Redis that refuses connections costs less time, and its error shows.
	if s.passwordFile != "" {
		password := clientauth.SecretFile(s.passwordFile)
		if _, err := password(ctx); err != nil {
			return nil, fmt.Errorf("password_file: %w", err)
		}
		// The password can be replaced while the program runs, so each connection reads it.
		options.CredentialsProviderContext = func(ctx context.Context) (username, secret string, err error) {
			secret, err = password(ctx)
			return s.options.Username, secret, err
		}
	}
	if s.caFile != "" {
		options.TLSConfig = options.TLSConfig.Clone()
		if options.TLSConfig.RootCAs, err = clientsettings.ReadRoots(s.caFile); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
	}
	client := redis.NewClient(&options)
	return &store{fingerprint: s.fingerprint(), client: client, shared: redisstore.New(client, keyring)}, nil
}

// config returns the store for Config.Store.
func (s *store) config() *clientcredentials.SharedStore {
	if s == nil {
		return nil
	}
	return s.shared
}

// observer returns an observer that remembers whether the last call failed.
func (s *store) observer() *clientcredentials.Observer {
	if s == nil {
		return nil
	}
	return &clientcredentials.Observer{StoreOperation: func(e event.StoreOperation) {
		if !errors.Is(e.Err, context.Canceled) {
			s.failing.Store(e.Err != nil && !errors.Is(e.Err, tokenstore.ErrLeaseLost))
		}
	}}
}

// health returns what /healthz says about the store.
func (s *store) health() string {
	switch {
	case s == nil:
		return ""
	case s.failing.Load():
		return "failing"
	}
	return "ok"
}

// close closes the connections. Token requests under way go on without the store.
func (s *store) close() {
	if s != nil {
		_ = s.client.Close()
	}
}
