package storetest

// Held returns how many entries s holds in memory.
func Held(s *Store) int {
	c := s.shared()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}
