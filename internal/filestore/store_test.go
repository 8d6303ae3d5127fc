package filestore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/internal/filestore"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// reports are what a Store has reported.
type reports struct {
	mu    sync.Mutex
	texts []string
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, err.Error())
}

func (r *reports) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.texts, "\n")
}

func open(t *testing.T, path string) (*filestore.Store, *reports) {
	t.Helper()
	r := new(reports)
	s, err := filestore.Open(path, r.add)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close(t.Context())) }) // The context is done, so it doesn't wait.
	return s, r
}

var (
	key    = strings.Repeat("0123456789abcdef", 4)
	other  = strings.Repeat("fedcba9876543210", 4)
	stored = tokenstore.Record{Version: "v1", Data: []byte("data")}
)

// put publishes a record under key, and returns its file.
func put(t *testing.T, s *filestore.Store, folder string) string {
	t.Helper()
	return putUnder(t, s, folder, key)
}

func putUnder(t *testing.T, s *filestore.Store, folder, key string) string {
	t.Helper()
	claim, err := s.Acquire(t.Context(), key, "", "owner", time.Minute)
	require.NoError(t, err)
	require.Equal(t, tokenstore.ClaimLead, claim.State)
	require.NoError(t, s.Publish(t.Context(), key, "owner", stored, time.Hour))
	return filepath.Join(folder, key)
}

// state returns what another process would do now. It leaves no lease.
func state(t *testing.T, s *filestore.Store) tokenstore.ClaimState {
	t.Helper()
	claim, err := s.Acquire(t.Context(), key, "", "another", time.Minute)
	require.NoError(t, err)
	require.NoError(t, s.Abort(t.Context(), key, "another", nil, 0))
	return claim.State
}

func TestC9_Contract(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	var all []*reports
	storetest.Run(t, func(t *testing.T) tokenstore.Store {
		s, r := open(t, folder)
		all = append(all, r)
		return s
	})
	for _, r := range all {
		assert.NotContains(t, r.String(), "is ignored")
	}
}

// TestC9_Files checks that a file which isn't as the Store writes it counts as nothing, is
// reported, and is replaced.
func TestC9_Files(t *testing.T) {
	edit := func(change func(content string) string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte(change(string(content))), 0o600))
		}
	}
	const damaged = "it is damaged"
	tests := []struct {
		name   string
		change func(t *testing.T, path string)
		want   string
	}{
		{"empty", edit(func(string) string { return "" }), damaged},
		{"one byte", edit(func(s string) string { return s[:1] }), damaged},
		{"cut in the middle", edit(func(s string) string { return s[:len(s)/2] }), damaged},
		{"without its last brace", edit(func(s string) string { return s[:len(s)-2] }), damaged},
		{"another version", edit(func(s string) string { return strings.Replace(s, "v1", "v2", 1) }), damaged},
		{"another format", edit(func(s string) string { return strings.Replace(s, "cache 1", "cache 2", 1) }), damaged},
		{"something else", edit(func(string) string { return `{"access_token":"x"}` }), damaged},
		{"something behind it", edit(func(s string) string { return s + "x" }), damaged},
		{"huge", edit(func(s string) string { return s + strings.Repeat("\n", 1<<20) }), "it is too large"},
		{"of another key", func(t *testing.T, path string) {
			s, _ := open(t, filepath.Dir(path))
			require.NoError(t, os.Rename(putUnder(t, s, filepath.Dir(path), other), path))
		}, damaged},
		{"a link to a good file", func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".kept"))
			require.NoError(t, os.Symlink(filepath.Base(path)+".kept", path))
		}, "it isn't a regular file"},
		{"a link to nothing", func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "new"), path))
		}, "it isn't a regular file"},
		{"a link in the place of the new file", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			require.NoError(t, os.Symlink(path+".kept", path+".new"))
		}, damaged},
		{"left by a process that was killed", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			require.NoError(t, os.WriteFile(path+".new", []byte("half"), 0o400))
		}, damaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "cache")
			s, r := open(t, folder)
			path := put(t, s, folder)
			kept, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, tokenstore.ClaimHit, state(t, s))
			require.Empty(t, r.String())

			tt.change(t, path)
			assert.Equal(t, path, put(t, s, folder), "it is replaced by the lease and by the record")
			assert.Equal(t, path+" is ignored and replaced: "+tt.want, r.String())
			assert.Equal(t, tokenstore.ClaimHit, state(t, s))
			info, err := os.Lstat(path)
			require.NoError(t, err)
			assert.True(t, info.Mode().IsRegular())
			if content, err := os.ReadFile(path + ".kept"); err == nil {
				assert.Equal(t, kept, content, "the file behind the link was changed")
			}
		})
	}
}

// TestC9_OtherKeys checks that a key can't name another file.
func TestC9_OtherKeys(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	s, _ := open(t, folder)
	for _, key := range []string{"", "lock", "../" + key, key[1:], key + "0", strings.ToUpper(key), key + "\n", key + ".new"} {
		_, err := s.Acquire(t.Context(), key, "", "owner", time.Minute)
		require.ErrorContains(t, err, "64 hexadecimal digits", key)
	}
	files, err := os.ReadDir(filepath.Dir(folder))
	require.NoError(t, err)
	assert.Len(t, files, 1)
}

// TestC9_Sweep checks that expired files don't stay, and that other files do.
func TestC9_Sweep(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	s, _ := open(t, folder)
	name := func(i int) string { return fmt.Sprintf("%064x", i) }
	past, future := time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
	expired := []string{name(1), name(2) + ".new"}
	others := []string{"notes.txt", name(3) + ".bak", name(4)}
	for _, file := range append(expired, others...) {
		path := filepath.Join(folder, file)
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		until := past
		if file == name(4) {
			until = future
		}
		require.NoError(t, os.Chtimes(path, until, until))
	}
	path := put(t, s, folder)
	for _, file := range expired {
		assert.NoFileExists(t, filepath.Join(folder, file))
	}
	for _, file := range others {
		assert.FileExists(t, filepath.Join(folder, file))
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(time.Hour), info.ModTime(), time.Minute)
	require.NoError(t, s.Invalidate(t.Context(), key, stored.Version))
	assert.NoFileExists(t, path)
}

// TestC9_ClockSetBack checks that nothing lasts longer because the clock was wrong.
func TestC9_ClockSetBack(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	s, r := open(t, folder)
	testkit.Bubble(t, func(t *testing.T) { // The clock of a bubble begins in the year 2000.
		claim, err := s.Acquire(t.Context(), key, "", "owner", time.Minute)
		require.NoError(t, err)
		assert.Equal(t, tokenstore.ClaimLead, claim.State)
		time.Sleep(time.Minute - 1)
		_, err = s.Acquire(t.Context(), key, "", "owner", time.Minute)
		require.NoError(t, err)
	})
	testkit.Bubble(t, func(t *testing.T) {
		assert.Equal(t, tokenstore.ClaimLead, state(t, s), "the lease is from the future")
	})
	assert.Empty(t, r.String())
}

// TestC9_Lock checks that a call waits for the lock no longer than its context allows.
func TestC9_Lock(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	s, r := open(t, folder)
	unlock, err := filestore.Lock(s)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = s.Acquire(ctx, key, "", "owner", time.Minute)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Contains(t, r.String(), "another process is using the cache for too long")
	unlock()
	assert.Equal(t, tokenstore.ClaimLead, state(t, s))
}

// TestC9_Close checks that Close waits for the end of leases, however they end.
func TestC9_Close(t *testing.T) {
	for name, end := range map[string]func(context.Context, *filestore.Store) error{
		"Publish": func(ctx context.Context, s *filestore.Store) error {
			return s.Publish(ctx, key, "owner", stored, time.Hour)
		},
		"Abort": func(ctx context.Context, s *filestore.Store) error { return s.Abort(ctx, key, "owner", nil, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := filestore.Open(filepath.Join(t.TempDir(), "cache"), new(reports).add)
			require.NoError(t, err)
			_, err = s.Acquire(t.Context(), key, "", "owner", time.Minute)
			require.NoError(t, err)
			closed := make(chan error)
			go func() { closed <- s.Close(t.Context()) }()
			select {
			case err := <-closed:
				t.Errorf("it didn't wait: %v", err)
			case <-time.After(20 * time.Millisecond): // Only a failure depends on the time.
				require.NoError(t, end(t.Context(), s))
				require.NoError(t, <-closed)
			}
		})
	}
}
