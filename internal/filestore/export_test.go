package filestore

import "context"

// Lock locks the folder of s, as another process would.
func Lock(s *Store) (unlock func(), err error) { return s.lock(context.Background()) }
