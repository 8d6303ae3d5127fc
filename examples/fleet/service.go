package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/redisstore"
)

const (
	clientID     = "fleet"
	clientSecret = "correct horse battery staple"
)

// A spec is the configuration of a replica.
type spec struct {
	TokenURL, APIURL string
	EarlyRefresh     time.Duration
	Pause            time.Duration // between two API calls

	RedisAddr  string // empty: no store
	SealingKey []byte // the same for all replicas
}

// newClient returns a client for the API. If s has a Redis, the client shares tokens with
// the other replicas through it.
func newClient(ctx context.Context, s spec, observer *clientcredentials.Observer) (*http.Client, error) {
	conf := &clientcredentials.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		TokenURL:     s.TokenURL,
		EarlyRefresh: s.EarlyRefresh, // The default is fine for tokens that live longer.
		Observer:     observer,
	}
	if s.RedisAddr != "" {
		keyring, err := clientcredentials.NewKeyring(s.SealingKey)
		if err != nil {
			return nil, err
		}
		conf.Store = redisstore.New(redis.NewClient(&redis.Options{
			Addr:                  s.RedisAddr,
			ContextTimeoutEnabled: true,
		}), keyring)
	}
	return &http.Client{Transport: conf.Transport(ctx), Timeout: 30 * time.Second}, nil
}

// call makes one API call. It knows nothing about tokens.
func call(ctx context.Context, client *http.Client, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answered %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
