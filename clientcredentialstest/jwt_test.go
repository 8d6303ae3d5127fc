package clientcredentialstest

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUsed(t *testing.T) {
	var u used
	now := time.Now()
	for i := range 2*kept + 1 {
		now = now.Add(time.Second)
		require.True(t, u.add(strconv.Itoa(i), now, now.Add(time.Minute)))
		require.LessOrEqual(t, len(u.until), kept, "ids in the past are forgotten")
	}
	require.False(t, u.add(strconv.Itoa(2*kept), now.Add(time.Minute), now.Add(time.Hour)))

	// If none can be forgotten, not every addition searches through all of them.
	for i := range 2 * kept {
		require.True(t, u.add("new"+strconv.Itoa(i), now, now.Add(time.Minute)))
	}
	require.Greater(t, u.sweepAt, kept)
}

// TestProofIsRemembered: a proof is remembered for as long as its time is accepted.
func TestProofIsRemembered(t *testing.T) {
	var u used
	p := proof{jkt: "key", id: "1", issuedAt: time.Now().Add(time.Minute)}
	require.True(t, p.use(&u))
	require.Equal(t, p.issuedAt.Add(maxProofAge), u.until["key 1"])
}
