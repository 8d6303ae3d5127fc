package main

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// newSTS returns a client for AWS Security Token Service. It finds the credentials of the
// workload, and its region, as all programs that use the SDK do. A region is required: the
// global endpoint doesn't issue these tokens.
func newSTS(ctx context.Context) (*sts.Client, error) {
	conf, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	return sts.NewFromConfig(conf), nil
}

// awsSource returns a source of tokens that say which IAM role the workload has. The account
// must have outbound identity federation enabled, and the role needs the permission
// sts:GetWebIdentityToken. Limit that permission to the audience.
//
// Each token request gets a new token. It lives for a minute, which is the shortest time that AWS
// allows.
func awsSource(client *sts.Client, audience string) clientauth.SecretSource {
	return func(ctx context.Context) (string, error) {
		token, err := client.GetWebIdentityToken(ctx, &sts.GetWebIdentityTokenInput{
			Audience:         []string{audience},
			SigningAlgorithm: aws.String("ES384"), // or RS256, if the server doesn't know ES384
			DurationSeconds:  aws.Int32(60),
		})
		if err != nil {
			return "", err
		}
		return aws.ToString(token.WebIdentityToken), nil
	}
}
