package natsstore

import (
	"testing"
)

func testContract(t *testing.T, newStore func(testing.TB) *Store) { t.Helper() }
