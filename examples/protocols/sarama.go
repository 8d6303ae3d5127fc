package protocols

import (
	"context"
	"time"

	"github.com/IBM/sarama"

	"github.com/seed-5bfa0880/clientcredentials"
)

// SaramaTokens is a sarama.AccessTokenProvider.
//
// Sarama passes no context, and asks for an error after a short time. So the wait for a token
// ends after Timeout, or when Context ends.
type SaramaTokens struct {
	Context context.Context
	Source  *clientcredentials.Source
	Timeout time.Duration
}

// Token returns the token for a new connection, or for a session that is about to end.
func (s *SaramaTokens) Token() (*sarama.AccessToken, error) {
	ctx, cancel := context.WithTimeout(s.Context, s.Timeout)
	defer cancel()
	token, err := s.Source.AccessToken(ctx)
	if err != nil {
		return nil, err
	}
	return &sarama.AccessToken{Token: token}, nil
}

// UseSaramaTokens has a configuration of Sarama authenticate with OAUTHBEARER.
func UseSaramaTokens(conf *sarama.Config, tokens *SaramaTokens) {
	conf.Net.SASL.Enable = true
	conf.Net.SASL.Mechanism = sarama.SASLTypeOAuth
	conf.Net.SASL.TokenProvider = tokens
	conf.Net.TLS.Enable = true // The token must not travel in plaintext.
}
