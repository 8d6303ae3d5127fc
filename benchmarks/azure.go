package main

import (
	"context"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

var azurePeer = peer{
	name:   "azcore",
	module: "github.com/Azure/azure-sdk-for-go/sdk/azcore",
	how: "`runtime.NewBearerTokenPolicy` in a pipeline with its defaults. The pipeline does much more for each request, such as retries and telemetry. " +
		"It has no client credentials grant, so it gets the minimal token request. " +
		"It has no function that returns a token. One of the callers replaces a token before its expiry and waits for it, but at most once in 30 seconds, so never in these scenarios.",
	transport: func(s settings) http.RoundTripper {
		bearerPolicy := runtime.NewBearerTokenPolicy(azureCredential{s}, []string{"https://api.example.com/.default"}, nil)
		return azureTransport{runtime.NewPipeline("benchmarks", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{bearerPolicy}},
			&policy.ClientOptions{Transport: &http.Client{Transport: ownAnswers{s.api}}})}
	},
}

type azureCredential struct{ settings settings }

func (c azureCredential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	accessToken, expiry, err := c.settings.requestToken(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	token := azcore.AccessToken{Token: accessToken, ExpiresOn: expiry}
	if c.settings.early != 0 {
		token.RefreshOn = expiry.Add(-c.settings.early)
	}
	return token, nil
}

// An azureTransport sends a request through a pipeline.
type azureTransport struct{ pipeline runtime.Pipeline }

func (t azureTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	// Clone the request, because a pipeline changes it.
	inner, err := runtime.NewRequestFromRequest(req.Clone(req.Context()))
	if err != nil {
		return nil, err
	}
	return t.pipeline.Do(inner)
}

// ownAnswers copies the answers of base, because a pipeline changes them.
type ownAnswers struct{ base http.RoundTripper }

func (o ownAnswers) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	answer := *resp
	return &answer, nil
}
