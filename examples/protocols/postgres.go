package protocols

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-5bfa0880/clientcredentials"
)

// UseOAuth has the connections of a pool authenticate with OAUTHBEARER, which PostgreSQL
// supports since version 18. The server needs a validator module for the tokens. It checks a
// token when a connection begins, and the connection outlives the token: pgxpool.Config has
// MaxConnLifetime to limit that.
//
// Add sslmode=verify-full and require_auth=oauth to the connection string. Then another server
// can't get the token, and the client sends it only with OAUTHBEARER.
func UseOAuth(conf *pgxpool.Config, source *clientcredentials.Source) {
	conf.ConnConfig.OAuthTokenProvider = source.AccessToken
}

// UseTokenAsPassword sends a token as the password, as the databases of clouds want it, and
// servers that check passwords with PAM.
//
// The server asks for the password in plaintext. So add sslmode=verify-full to the connection
// string, and require_auth=password.
func UseTokenAsPassword(conf *pgxpool.Config, source *clientcredentials.Source) {
	conf.BeforeConnect = func(ctx context.Context, conn *pgx.ConnConfig) error {
		token, err := source.AccessToken(ctx)
		conn.Password = token
		return err
	}
}
