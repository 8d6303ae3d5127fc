package clientauth

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxFile is the largest file that is read: a secret, a key, a chain of certificates.
const maxFile = 64 << 10

// maxReadings is how often files are read that are being replaced at that moment. Replacing
// them takes microseconds.
const maxReadings = 5

// readFile returns the content of a small file. Its errors name the file.
func readFile(path string) ([]byte, error) {
	return untilFound(func() ([]byte, error) { return readOnce(path) })
}

// untilFound calls read again if the file is missing. If the path leads through a symbolic link
// to a directory, as in a volume of Kubernetes, the link may be replaced and the directory
// removed while the system follows it.
func untilFound(read func() ([]byte, error)) (data []byte, err error) {
	for range maxReadings {
		if data, err = read(); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return data, err
}

// readOnce is readFile without another attempt.
func readOnce(path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("the name of a file is empty; set it")
	}
	info, err := os.Stat(path) // Opening a named pipe would wait for its other end.
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("the file %s is larger than 64 KiB; check that it is the right one", path)
	}
	return data, err
}

// parseFile returns the value that parse finds in a small file. Its errors name the
// file.
func parseFile[T any](path string, parse func(data []byte) (T, error)) (value T, err error) {
	data, err := readFile(path)
	if err != nil {
		return value, err
	}
	if value, err = parse(data); err != nil {
		err = fmt.Errorf("the file %s: %w", path, err)
	}
	return value, err
}
