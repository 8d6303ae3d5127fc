package protocols

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// One Source serves the whole program.
func Example() {
	server := cct.NewServer()
	defer server.Close()
	ctx := context.Background()
	conf := &clientcredentials.Config{
		ClientID:     cct.ClientID,
		ClientSecret: cct.ClientSecret,
		TokenURL:     server.TokenURL,
	}

	source := conf.Source(ctx)

	database, err := pgxpool.ParseConfig("postgres://reports@db.example/reports?sslmode=verify-full&require_auth=oauth")
	if err != nil {
		fmt.Println(err)
		return
	}
	UseOAuth(database, source)
	kafka := kgo.SASL(FranzMechanism(source))
	aws := SmithyTokens(source)

	for range 100 {
		if _, err := aws.RetrieveBearerToken(ctx); err != nil {
			fmt.Println(err)
		}
		if _, err := database.ConnConfig.OAuthTokenProvider(ctx); err != nil {
			fmt.Println(err)
		}
	}
	_ = kafka
	fmt.Println("token requests:", server.Auth.TokenRequests())
	// Output: token requests: 1
}
