package filestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// errSharingViolation is ERROR_SHARING_VIOLATION.
const errSharingViolation = syscall.Errno(32)

// tryLock locks the folder, or returns errBusy if another process has locked it. The lock is
// a file that is opened without sharing it.
func tryLock(folder *os.Root) (unlock func(), err error) {
	name, err := syscall.UTF16PtrFromString(filepath.Join(folder.Name(), lockName))
	if err != nil {
		return nil, err
	}
	handle, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		if errors.Is(err, errSharingViolation) {
			err = errBusy
		}
		return nil, err
	}
	return func() { _ = syscall.CloseHandle(handle) }, nil
}

// checkPrivate does nothing: on Windows a folder inherits who may use it, and that of the
// user's cache is the user's own.
func checkPrivate(fs.FileInfo) error { return nil }
