package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/oauth2"
)

// The versions of the interface between kubectl and the programs that get its credentials.
// Both have the members that are used here.
var credentialVersions = []string{"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}

// An execCredential is what kubectl reads,
// https://kubernetes.io/docs/reference/config-api/client-authentication.v1/.
type execCredential struct {
	Kind       string           `json:"kind"`
	APIVersion string           `json:"apiVersion"`
	Status     credentialStatus `json:"status"`
}

type credentialStatus struct {
	Token  string     `json:"token"`
	Expiry *time.Time `json:"expirationTimestamp,omitempty"`
}

// printCredential is cctoken exec-credential.
func printCredential(ctx context.Context, c *call) error {
	caching := c.addCacheFlags(true)
	var timeout time.Duration
	c.addDuration(&timeout, "timeout", 30*time.Second)
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	version, err := credentialVersion(c.env("KUBERNETES_EXEC_INFO"))
	if err != nil {
		return err
	}
	if s.DPoP != nil {
		return usagef("a token that is bound to a key needs a proof with each request, which kubectl doesn't send; leave out -dpop-key-file")
	}
	token, err := fetch(ctx, c, s, caching, timeout)
	if err != nil {
		return err
	}
	switch {
	case scheme(token) != "Bearer":
		return &failure{statusUnusable, fmt.Errorf("the type of the token is %s, but kubectl can use Bearer only; ask the server's operator for such tokens", scheme(token))}
	case len(parseToken(token.AccessToken).confirmation()) > 0:
		return &failure{statusUnusable, errors.New("the token is bound to a key or a certificate, which kubectl doesn't present with it; ask the server's operator for tokens that aren't bound")}
	}
	return writeJSON(c.out, execCredential{
		Kind:       "ExecCredential",
		APIVersion: version,
		Status:     credentialStatus{token.AccessToken, credentialExpiry(token, time.Now())},
	})
}

// credentialVersion returns the version that kubectl asks for. info is empty if somebody else
// runs the command.
func credentialVersion(info string) (string, error) {
	if info == "" {
		return credentialVersions[0], nil
	}
	var asked struct {
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal([]byte(info), &asked); err != nil {
		return "", usagef("KUBERNETES_EXEC_INFO isn't JSON; kubectl sets it, so don't set it yourself")
	}
	if !slices.Contains(credentialVersions, asked.APIVersion) {
		return "", usagef("kubectl asks for a version that cctoken doesn't know; write apiVersion: %s below exec in the kubeconfig", credentialVersions[0])
	}
	return asked.APIVersion, nil
}

// credentialExpiry returns when kubectl is to ask for another token: a tenth of the remaining
// life before the token expires, or 10 seconds if that is less. Nil: the token doesn't expire.
func credentialExpiry(token *oauth2.Token, now time.Time) *time.Time {
	if token.Expiry.IsZero() {
		return nil
	}
	expiry := token.Expiry.Add(-min(10*time.Second, max(0, token.Expiry.Sub(now)/10))).UTC().Truncate(time.Second)
	return &expiry
}
