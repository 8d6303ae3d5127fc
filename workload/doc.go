// Package workload has sources of the assertions that a platform issues to the programs on it.
// With them a client needs no secret and no key of its own: the platform says who the program
// is, and the authorization server trusts the platform.
//
// # Use
//
// A source goes into the Assertion of package clientauth (RFC 7523, Section 2.2):
//
//	conf := &clientcredentials.Config{
//		ClientID: "reports",
//		TokenURL: "https://login.example.com/oauth2/token",
//		ClientAuth: &clientauth.Assertion{
//			Source: workload.GitHubActions("https://login.example.com/oauth2/token"),
//		},
//	}
//
// The audience is what the authorization server expects in aud. Ask for one that no other
// server accepts, because the server that gets the assertion could use it elsewhere. Microsoft
// Entra ID expects api://AzureADTokenExchange. At the server, register the issuer and the
// subject of the assertions, where it calls that federated or trusted credentials.
//
// Make one source, and keep it: it keeps the token for all who use it.
//
// # Which source
//
//   - [GitHubActions]: a job of GitHub Actions or Forgejo Actions
//   - [AzurePipelines]: a job of Azure Pipelines
//   - [GoogleMetadata]: Compute Engine, GKE, Cloud Run, Cloud Functions
//   - [AzureManagedIdentity]: virtual machines, App Service, Functions, Container Apps
//   - [KubernetesToken]: a pod in any cluster, also AKS and EKS with their federation
//   - [Command]: anything that has a program for it
//
// For AWS and for SPIFFE, docs/cookbook.md has sources that use the libraries of these
// platforms.
//
// # How long a token is kept
//
// A token is kept until a fifth of its life is left, or 5 minutes if that is less. After that,
// the next call asks for another one, and waits up to a second for it. If the platform hangs or
// fails, callers use the old token until it expires. A request that takes longer goes on
// without them. After a failure the platform is asked again 10 seconds later at the earliest,
// and nobody waits for that.
//
// A caller without a valid token waits for as long as its context allows. There is at most one
// request at a time for all callers.
//
// The life of a token ends with its exp. But it is never longer than from iat to exp, or from
// nbf to exp if there is no iat, counted from when the token arrived. So a token isn't used
// long after its end if the clock of this machine is behind. No token is kept for more than
// 24 hours.
//
// Two kinds of tokens aren't kept: those without an expiry, and those with a jti. A server may
// accept a jti only once (RFC 7523, Section 3), so each token request gets a token of its own.
// The tokens of GitHub Actions and Azure Pipelines have one.
//
// The source doesn't know whether a server has refused a token that is kept. The token is sent
// again with the next token request. When you have changed something at the platform, such as
// the service account, restart the program.
//
// # When something is wrong
//
// The environment is read at each call. Outside of its platform a source returns an error that
// says what is missing. This takes a few seconds at most. A request that fails is repeated
// where the platform says that this helps, for 8 seconds altogether.
//
// Errors contain no token, no credential and no more than a line of an answer. No redirect is
// followed. A metadata server is never asked through a proxy. A credential is sent only by
// https, or to this machine or the network inside it.
//
// All sources are safe for concurrent use.
package workload
