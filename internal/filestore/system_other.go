//go:build !windows && (!unix || aix || solaris)

package filestore

import (
	"errors"
	"io/fs"
	"os"
)

func tryLock(*os.Root) (unlock func(), err error) { return nil, errors.ErrUnsupported }

// checkPrivate makes Open fail, because there is no lock.
func checkPrivate(fs.FileInfo) error { return errors.ErrUnsupported }
