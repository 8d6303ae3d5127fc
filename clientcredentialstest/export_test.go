package clientcredentialstest

import (
	"testing"

	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TokensHeld returns how many tokens the server holds in memory.
func (s *AuthorizationServer) TokensHeld() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens)
}

// Remember makes the server accept a token that it hasn't issued.
func (s *AuthorizationServer) Remember(accessToken string, t Token) {
	s.remember(accessToken, t)
}
