package storetest

// Held returns how many entries s holds in memory, expired ones included.
func Held(s *Store) int {
	c := s.shared()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}
