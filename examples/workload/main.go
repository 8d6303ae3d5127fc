// Workload authenticates with the identity that a platform gives to a program: the IAM role
// of AWS, and a JWT-SVID of SPIFFE. For other platforms, see package workload.
//
//	go -C examples/workload run .
//
// It takes a second, and starts its own servers on the loopback interface: a part of AWS
// Security Token Service, an agent with the SPIFFE Workload API, and an authorization server
// that trusts both. The parts to copy are in aws.go and spiffe.go. The program is a module of
// its own, so that this library doesn't depend on the libraries of these platforms.
package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: workload

Starts an authorization server and two platforms on the loopback interface, and
authenticates with what the platforms say about the program.

The exit status is 0 if all checks pass, else 1.
`

func main() { report.Main("workload", usage, run) }

func run(ctx context.Context, out io.Writer) error {
	r := report.New(out)
	auth := newAuthorizationServer()
	defer auth.close()

	r.Say("1. AWS: the program has an IAM role")
	platform, err := startAWS()
	if err != nil {
		return err
	}
	defer platform.close()
	auth.trust(clientauth.TypeJWTBearer, platform.verify)
	client, err := newSTS(ctx)
	if err != nil {
		return err
	}
	aws := &clientcredentials.Config{
		TokenURL:   auth.tokenURL,
		ClientAuth: &clientauth.Assertion{Source: awsSource(client, auth.tokenURL)},
	}
	_, err = aws.Token(ctx)
	r.Check(err == nil, "the server has issued a token%s", report.Because(err))
	r.Check(auth.lastClient() == roleARN, "it knows the client as %s", roleARN)
	_, err = aws.Token(ctx)
	r.Check(err == nil && platform.requests() == 2, "the next token request has an assertion of its own%s", report.Because(err))

	r.Say("\n2. SPIFFE: the program has a JWT-SVID")
	agent, err := startAgent()
	if err != nil {
		return err
	}
	defer agent.close()
	auth.trust(clientauth.TypeJWTSPIFFE, agent.verify)
	source, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	spiffe := &clientcredentials.Config{
		TokenURL: auth.tokenURL,
		ClientAuth: &clientauth.Assertion{
			Source: spiffeSource(source, auth.tokenURL),
			Type:   clientauth.TypeJWTSPIFFE,
		},
	}
	_, err = spiffe.Token(ctx)
	r.Check(err == nil, "the server has issued a token%s", report.Because(err))
	r.Check(auth.lastClient() == spiffeID, "it knows the client as %s", spiffeID)

	r.Say("\n3. An assertion for another server")
	spiffe.ClientAuth = &clientauth.Assertion{
		Source: spiffeSource(source, "https://another.example"),
		Type:   clientauth.TypeJWTSPIFFE,
	}
	_, err = spiffe.Token(ctx)
	r.Check(err != nil, "the server refuses it")
	r.Say("   %s", fmt.Sprint(err))
	return r.Result()
}
