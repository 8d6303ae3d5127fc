package storetest

import (
	"testing"

	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// Held returns how many entries s holds in memory, expired ones included.
func Held(s *Store) int {
	c := s.shared()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}
