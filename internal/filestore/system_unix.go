//go:build unix && !aix && !solaris

package filestore

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// tryLock locks the folder, or returns errBusy if another process has locked it.
func tryLock(folder *os.Root) (unlock func(), err error) {
	file, err := folder.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			err = errBusy
		}
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

// checkPrivate returns an error unless the file belongs to this user, and to nobody else.
func checkPrivate(info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int64(stat.Uid) != int64(os.Geteuid()) {
		return errForeign
	}
	if info.Mode().Perm()&0o077 != 0 {
		return errReadable
	}
	return nil
}
