package clientcredentialstest

// TokensHeld returns how many tokens the server holds in memory.
func (s *AuthorizationServer) TokensHeld() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens)
}

// TakeAddress lets s come back at the address of other.
func (s *Server) TakeAddress(other *Server) {
	s.addr = other.addr
}

// Remember makes the server know a token of another origin.
func (s *AuthorizationServer) Remember(accessToken string, t Token) {
	s.remember(accessToken, t)
}
