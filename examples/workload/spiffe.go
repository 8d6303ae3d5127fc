package main

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// spiffeSource returns a source of JWT-SVIDs from the Workload API, which is the agent of
// SPIRE, for example. The agent keeps them until they are about to expire.
//
// Make the JWTSource once, with workloadapi.NewJWTSource, and keep it open as long as the
// program runs. It finds the agent by SPIFFE_ENDPOINT_SOCKET.
func spiffeSource(source *workloadapi.JWTSource, audience string) clientauth.SecretSource {
	return func(ctx context.Context) (string, error) {
		svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
		if err != nil {
			return "", err
		}
		return svid.Marshal(), nil
	}
}
