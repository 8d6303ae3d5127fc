//go:build unix && !aix && !solaris

package filestore_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/filestore"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// TestC10_Folder checks which folders are refused, and that none is changed.
func TestC10_Folder(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"missing, with its parents", func(t *testing.T, path string) { require.NoError(t, os.Remove(filepath.Dir(path))) }, ""},
		{"private", func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }, ""},
		{"listed by others", func(t *testing.T, path string) { makeFolder(t, path, 0o755) }, "make it private with chmod 700"},
		{"entered by the group", func(t *testing.T, path string) { makeFolder(t, path, 0o710) }, "make it private with chmod 700"},
		{"written by others", func(t *testing.T, path string) { makeFolder(t, path, 0o777|os.ModeSticky) }, "make it private with chmod 700"},
		{"a link", func(t *testing.T, path string) { require.NoError(t, os.Symlink(t.TempDir(), path)) }, "is a symbolic link"},
		{"a link to nothing", func(t *testing.T, path string) { require.NoError(t, os.Symlink("missing", path)) }, "can't be created"},
		{"a file", func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) }, "/b"},
		{"of another user", func(t *testing.T, path string) {
			makeFolder(t, path, 0o700)
			giveAway(t, path)
		}, "belongs to another user"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a", "b")
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
			tt.make(t, path)
			for _, name := range []string{path, path + "/"} {
				s, err := filestore.Open(name, new(reports).add)
				if tt.want != "" {
					require.ErrorContains(t, err, tt.want)
					continue
				}
				require.NoError(t, err)
				require.NoError(t, s.Close(t.Context()))
				info, err := os.Stat(path)
				require.NoError(t, err)
				assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
			}
		})
	}
}

// TestC10_FolderOfRoot is about another user's folder, for those who can't give one away.
func TestC10_FolderOfRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("for root it isn't another user's")
	}
	_, err := filestore.Open("/", new(reports).add)
	require.ErrorContains(t, err, "belongs to another user")
}

func makeFolder(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.Mkdir(path, 0o700))
	require.NoError(t, os.Chmod(path, mode)) // whatever the umask
}

// giveAway makes path belong to another user, or skips the test.
func giveAway(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to another user")
	}
	require.NoError(t, os.Chown(path, 12345, -1))
}

// TestC10_Files checks that what somebody else can read or has written isn't used, and that
// nothing blocks.
func TestC10_Files(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, path string)
		want   string
	}{
		{"read by others", func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o644)) }, "can be read by others"},
		{"read by the group", func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o640)) }, "can be read by others"},
		{"written by others", func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o602)) }, "can be read by others"},
		{"of another user", giveAway, "belongs to another user"},
		{"a pipe", func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, syscall.Mkfifo(path, 0o600))
		}, "isn't a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "cache")
			s, r := open(t, folder)
			path := put(t, s, folder)
			tt.change(t, path)
			put(t, s, folder)
			assert.Equal(t, path+" is ignored and replaced: it "+tt.want, r.String())
			assert.Equal(t, tokenstore.ClaimHit, state(t, s))
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		})
	}
}
