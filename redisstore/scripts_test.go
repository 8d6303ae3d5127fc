package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDigests(t *testing.T) {
	for _, script := range []script{acquire, renew, publish, abort, invalidate} {
		digest := sha1.Sum([]byte(script.source))
		require.Equal(t, hex.EncodeToString(digest[:]), script.sha1, "sha1 of the script %s in scripts.go", script.name)
	}
}
