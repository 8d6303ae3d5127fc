// Package filestore keeps the tokens of one user in files, so that the processes of that
// user on one machine share them. It implements tokenstore.Store.
//
// A folder has one file for each key, and a file that is locked while another one is read and
// replaced. The lock is the system's: it ends with the process that holds it. A file is
// replaced as a whole, so a process that is killed leaves the old one or the new one.
//
// Nothing in the folder is trusted unless it is a regular file that belongs to the user and
// that nobody else can read. Whatever else is there, under a key, counts as nothing. It is
// never followed, and the next write puts a new file in its place.
package filestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

const (
	lockName  = "lock"
	newSuffix = ".new" // of a file that is being written

	// maxSize bounds a file: a record and a note of 100 KiB each, in base64, and some more.
	maxSize = 512 << 10

	// While another process holds the lock, it is tried again after 1, 2, 4 … milliseconds.
	minPause = time.Millisecond
	maxPause = 16 * time.Millisecond
)

// A Store keeps tokens in a folder. It encrypts nothing: pass it to clientcredentials.Seal
// if that is wanted. It is safe for concurrent use.
type Store struct {
	folder *os.Root
	report func(error)

	mu     sync.Mutex        // protects what follows
	leases map[string]string // those that this Store has been granted: their owners by key
	ended  chan struct{}     // closed when one of them ends
}

var _ tokenstore.Store = (*Store)(nil)

// Open returns a Store in the folder with this path, and creates the folder if there is none.
// It is an error if the folder is a symbolic link, belongs to another user, or can be used by
// others.
//
// The Store calls report with each error that it returns, except ErrLeaseLost, and with the
// reason why it ignores a file. No such error contains a token.
func Open(path string, report func(error)) (*Store, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of the cache can't be created: %w", err)
	}
	info, err := os.Lstat(filepath.Clean(path)) // With a slash at the end, it would follow a link.
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link; give the folder that it leads to", path)
	}
	folder, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	opened, err := folder.Stat(".")
	switch {
	case err != nil:
	case !os.SameFile(info, opened):
		err = fmt.Errorf("%s has just been replaced; try again", path)
	default:
		err = checkPrivate(opened)
		if errors.Is(err, errReadable) {
			err = fmt.Errorf("%s can be used by others; make it private with chmod 700", path)
		} else if err != nil {
			err = fmt.Errorf("%s %w", path, err)
		}
	}
	if err != nil {
		_ = folder.Close()
		return nil, err
	}
	return &Store{folder: folder, report: report, leases: make(map[string]string), ended: make(chan struct{})}, nil
}

// Close waits until all leases that s was granted have ended, no longer than ctx allows, and
// closes the folder. So the end of a process doesn't leave a lease for which others wait.
func (s *Store) Close(ctx context.Context) error {
	for {
		s.mu.Lock()
		held, ended := len(s.leases), s.ended
		s.mu.Unlock()
		if held == 0 || ctx.Err() != nil {
			return s.folder.Close()
		}
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
}

// Acquire implements tokenstore.Store.
func (s *Store) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (claim tokenstore.Claim, err error) {
	err = s.change(ctx, key, func(e *entry, now time.Time) (bool, error) {
		claim = e.acquire(now, stale, owner, lease)
		if claim.State == tokenstore.ClaimLead {
			s.note(key, owner)
		}
		return claim.State == tokenstore.ClaimLead, nil
	})
	if err != nil {
		s.forget(key, owner)
		return tokenstore.Claim{}, err
	}
	return claim, nil
}

// Renew implements tokenstore.Store.
func (s *Store) Renew(ctx context.Context, key, owner string, lease time.Duration) error {
	return s.change(ctx, key, func(e *entry, now time.Time) (bool, error) {
		if !e.isLeasedTo(owner) {
			return false, tokenstore.ErrLeaseLost
		}
		e.grant(now, owner, lease)
		return true, nil
	})
}

// Publish implements tokenstore.Store. It also removes files in which everything has expired.
func (s *Store) Publish(ctx context.Context, key, owner string, r tokenstore.Record, ttl time.Duration) error {
	defer s.forget(key, owner)
	return s.change(ctx, key, func(e *entry, now time.Time) (bool, error) {
		if !e.isLeasedTo(owner) {
			return false, tokenstore.ErrLeaseLost
		}
		*e = entry{Record: &record{from(now, ttl), r.Version, r.Data}}
		s.sweep(now)
		return true, nil
	})
}

// Abort implements tokenstore.Store.
func (s *Store) Abort(ctx context.Context, key, owner string, note []byte, pause time.Duration) error {
	defer s.forget(key, owner)
	return s.change(ctx, key, func(e *entry, now time.Time) (bool, error) {
		if !e.isLeasedTo(owner) {
			return false, nil
		}
		e.Lease, e.Cooldown = nil, &cooldown{from(now, pause), note}
		return true, nil
	})
}

// Invalidate implements tokenstore.Store.
func (s *Store) Invalidate(ctx context.Context, key, version string) error {
	return s.change(ctx, key, func(e *entry, _ time.Time) (bool, error) {
		if e.Record == nil || e.Record.Version != version {
			return false, nil
		}
		e.Record, e.Lease = nil, nil
		return true, nil
	})
}

// note remembers a lease that s was granted.
func (s *Store) note(key, owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[key] = owner
}

// forget notes that the owner's lease has ended, or will end by itself.
func (s *Store) forget(key, owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[key] == owner {
		delete(s.leases, key)
		close(s.ended)
		s.ended = make(chan struct{})
	}
}

// keyName matches a key, so that no key leads out of the folder.
var keyName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// change calls decide with what is under key, and writes it if decide returns true.
func (s *Store) change(ctx context.Context, key string, decide func(e *entry, now time.Time) (bool, error)) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, tokenstore.ErrLeaseLost) {
			s.report(err)
		}
	}()
	if !keyName.MatchString(key) {
		return errors.New("the key of the token isn't 64 hexadecimal digits; this is a bug")
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	now := time.Now().Round(0) // The monotonic clock is another one in each process.
	e := s.read(key)
	e.expire(now)
	if changed, err := decide(&e, now); err != nil || !changed {
		return err
	}
	e.expire(now) // It may have been given no time.
	return s.write(key, &e)
}

// errBusy is the error for a lock that another process holds.
var errBusy = errors.New("another process is using the cache")

// lock locks the folder. It waits no longer than ctx allows.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w for too long: %w", errBusy, ctx.Err())
		}
		unlock, err := tryLock(s.folder)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, errBusy) {
			return nil, fmt.Errorf("the cache can't be locked: %w", err)
		}
		select {
		case <-time.After(time.Duration(float64(pause) * (0.5 + rand.Float64()))): //nolint:gosec // So that processes don't try all at once.
		case <-ctx.Done():
		}
	}
}

// read returns what is under key. A file that isn't as s writes it counts as nothing.
func (s *Store) read(key string) entry {
	data, err := s.readFile(key)
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}
	}
	var e entry
	if err == nil {
		e, err = decode(key, data)
	}
	if err != nil {
		s.report(fmt.Errorf("%s is ignored and replaced: it %w", filepath.Join(s.folder.Name(), key), err))
		return entry{}
	}
	return e
}

// The reasons why a file is ignored. They continue the sentence "it …".
var (
	errForeign  = errors.New("belongs to another user")
	errReadable = errors.New("can be read by others")
	errKind     = errors.New("isn't a regular file")
	errTooLarge = errors.New("is too large")
	errDamaged  = errors.New("is damaged")
)

// readFile returns the content of the file under key if it can be trusted. Nobody else can
// replace the file after it was examined, because the folder is the user's alone.
func (s *Store) readFile(key string) ([]byte, error) {
	info, err := s.folder.Lstat(key)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // Opening a pipe would block.
		return nil, errKind
	case info.Size() > maxSize:
		return nil, errTooLarge
	}
	if err := checkPrivate(info); err != nil {
		return nil, err
	}
	data, err := s.folder.ReadFile(key)
	if err != nil {
		return nil, fmt.Errorf("can't be read: %w", err)
	}
	return data, nil
}

// write replaces the file under key, or removes it if e is empty.
func (s *Store) write(key string, e *entry) (err error) {
	until, ok := e.until()
	if !ok {
		if err := s.folder.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the cached token can't be removed: %w", err)
		}
		return nil
	}
	data, err := encode(key, e)
	if err != nil {
		return err
	}
	temporary := key + newSuffix
	defer func() {
		if err != nil {
			_ = s.folder.Remove(temporary)
			err = fmt.Errorf("the token can't be cached: %w", err)
		}
	}()
	_ = s.folder.Remove(temporary) // A process that was killed has left it.
	file, err := s.folder.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := s.folder.Chtimes(temporary, until, until); err != nil { // For sweep.
		return err
	}
	return s.folder.Rename(temporary, key)
}

// sweep removes the files in which everything has expired. Their times of modification say
// when that is. Other files are left alone.
func (s *Store) sweep(now time.Time) {
	folder, err := s.folder.Open(".")
	if err != nil {
		return
	}
	defer folder.Close()
	files, _ := folder.ReadDir(-1) // What it has read until an error.
	for _, file := range files {
		info, err := file.Info()
		if err == nil && keyName.MatchString(strings.TrimSuffix(file.Name(), newSuffix)) && info.ModTime().Before(now) {
			_ = s.folder.Remove(file.Name())
		}
	}
}

// The first line of a file is formatLine, with the checksum of the key and of the rest. So a
// file that is damaged, or that has been renamed, isn't used.
const formatLine = "cctoken cache 1 "

// checksum returns the checksum in the first line.
func checksum(key string, text []byte) string {
	sum := sha256.New()
	_, _ = io.WriteString(sum, key)
	_, _ = sum.Write(text)
	return hex.EncodeToString(sum.Sum(nil))
}

func encode(key string, e *entry) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s%s\n%s\n", formatLine, checksum(key, text), text), nil
}

func decode(key string, data []byte) (entry, error) {
	line, text, _ := bytes.Cut(data, []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\n"))
	var e entry
	if string(line) != formatLine+checksum(key, text) || json.Unmarshal(text, &e) != nil {
		return entry{}, errDamaged
	}
	return e, nil
}
