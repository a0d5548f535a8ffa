// Package boltstore keeps a registry in one file of the data directory, with
// go.etcd.io/bbolt. It is the store of an installation with a single server.
//
// The file belongs to one process at a time. bbolt syncs it before a write returns, so
// a crash leaves the state before or after the write. bbolt has checksums only for its
// root, so each record has one. A file that is damaged, truncated while it is open, or
// of another version is an error with the steps to mend it, never a crash and never an
// empty registry.
//
// Layout: bucket "registry" has key "version" = "1"; bucket "records" has key →
// revision (8 bytes, big endian), CRC-32C of key, revision and value (4 bytes),
// value. Revisions are the bucket's sequence.
package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/daypass/daypass/internal/registry"
)

// Store is a registry.Store. Make it with Open, and Close it. Safe for concurrent use.
type Store struct {
	path string
	db   *bbolt.DB

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each write; guarded by mu
}

var _ registry.Store = (*Store)(nil)

var (
	about   = []byte("registry")
	records = []byte("records")
)

const version = "1"

// lockWait is how long Open waits for another process to release the file.
const lockWait = time.Second

// Open opens the file, or creates it with mode 0600. Its directory must exist. It reads the
// whole file once, so that a damaged file is refused.
func Open(path string) (*Store, error) {
	s := &Store{path: path, changed: make(chan struct{})}
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		// bbolt would treat an empty file as a new one.
		return nil, s.damaged(errors.New("the file is empty"))
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening the registry: %w", err)
	}
	err := guard(func() (err error) {
		s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("opening the registry: %s is in use by another process: end it first", path)
	case cannotOpen(err):
		return nil, fmt.Errorf("opening the registry: %w", err)
	case err != nil:
		return nil, s.damaged(err)
	}
	if err := s.prepare(); err != nil {
		_ = guard(s.db.Close)
		return nil, err
	}
	return s, nil
}

// cannotOpen reports whether a file was not even opened, as on a disk that is mounted read-only. That
// tells nothing about its content.
func cannotOpen(err error) bool {
	of, ok := errors.AsType[*fs.PathError](err)
	return ok && of.Op == "open"
}

// prepare makes the buckets, and reads the whole file once.
func (s *Store) prepare() error {
	if err := s.whole(); err != nil {
		return err
	}
	err := s.update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(records); err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists(about)
		if err != nil {
			return err
		}
		switch got := b.Get([]byte("version")); {
		case got == nil:
			return b.Put([]byte("version"), []byte(version))
		case string(got) != version:
			return &otherVersion{string(got)}
		}
		return nil
	})
	if other, ok := errors.AsType[*otherVersion](err); ok {
		return fmt.Errorf("the registry %s has version %q, and this program knows %s: run the newer program that wrote it", s.path, other.version, version)
	}
	if err != nil {
		return err
	}
	_, err = s.List(context.Background(), "")
	return err
}

type otherVersion struct{ version string }

func (e *otherVersion) Error() string { return "version " + e.version }

// whole checks that the file is as long as its root requires and that its pages are
// valid. bbolt could end the process when it reads a damaged file, so this comes first.
func (s *Store) whole() error {
	return s.view(func(tx *bbolt.Tx) error {
		info, err := os.Stat(s.path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("the file has %d bytes, and %d are needed", info.Size(), tx.Size())
		}
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = err
			}
		}
		return first
	})
}

// damaged adds the operator's next step to an error about the file.
func (s *Store) damaged(err error) error {
	return fmt.Errorf("the registry %s cannot be read: %w. Restore it from a backup; or move it away, start the server again and run "+
		"`daypass revoke --all`, since what was revoked is forgotten with it", s.path, err)
}

// errDamaged is wrapped by errors about the content of the file, in contrast to errors
// of the disk.
var errDamaged = errors.New("damaged")

// guard runs f and turns its panics into errors: bbolt panics on inconsistent pages, and
// reading a mapped file that was truncated causes a fault.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("%w: %v", errDamaged, problem)
		}
	}()
	return f()
}

func (s *Store) view(f func(*bbolt.Tx) error) error {
	return s.explain(guard(func() error { return s.db.View(f) }), false)
}

func (s *Store) update(f func(*bbolt.Tx) error) error {
	return s.explain(guard(func() error { return s.db.Update(f) }), true)
}

// explain keeps the errors that callers know, and says what to do about the others.
func (s *Store) explain(err error, writing bool) error {
	var other *otherVersion
	switch {
	case err == nil, errors.Is(err, registry.ErrNotFound), errors.Is(err, registry.ErrConflict), errors.As(err, &other):
		return err
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return errors.New("the registry is closed")
	case writing && !errors.Is(err, errDamaged):
		return fmt.Errorf("writing the registry %s: %w", s.path, err)
	}
	return s.damaged(err)
}

// Close closes the file, after transactions in progress have ended.
func (s *Store) Close() error {
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	return guard(s.db.Close)
}

// Get implements registry.Store.
func (s *Store) Get(ctx context.Context, key string) (record registry.Record, err error) {
	if err := ctx.Err(); err != nil {
		return record, err
	}
	err = s.view(func(tx *bbolt.Tx) error {
		record, err = get(tx.Bucket(records), key)
		return err
	})
	return record, err
}

// List implements registry.Store.
func (s *Store) List(ctx context.Context, prefix string) (list []registry.Record, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(records).Cursor()
		for key, value := c.Seek([]byte(prefix)); key != nil && strings.HasPrefix(string(key), prefix); key, value = c.Next() {
			record, err := parse(string(key), value)
			if err != nil {
				return err
			}
			list = append(list, record)
		}
		return nil
	})
	return list, err
}

// Create implements registry.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte) (registry.Record, error) {
	return s.write(ctx, key, 0, value)
}

// Replace implements registry.Store.
func (s *Store) Replace(ctx context.Context, old registry.Record, value []byte) (registry.Record, error) {
	return s.write(ctx, old.Key, old.Revision, value)
}

// write sets the value of a record whose revision is old, where 0 means that the record does
// not exist.
func (s *Store) write(ctx context.Context, key string, old uint64, value []byte) (record registry.Record, err error) {
	if err := ctx.Err(); err != nil {
		return record, err
	}
	err = s.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(records)
		if err := expect(b, key, old); err != nil {
			return err
		}
		revision, err := b.NextSequence()
		if err != nil {
			return err
		}
		record = registry.Record{Key: key, Value: bytes.Clone(value), Revision: revision}
		return b.Put([]byte(key), format(record))
	})
	if err != nil {
		return registry.Record{}, err
	}
	s.tell()
	return record, nil
}

// Delete implements registry.Store.
func (s *Store) Delete(ctx context.Context, old registry.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(records)
		if err := expect(b, old.Key, old.Revision); err != nil {
			return err
		}
		if _, err := b.NextSequence(); err != nil { // for Watch to notice
			return err
		}
		return b.Delete([]byte(old.Key))
	})
	if err == nil {
		s.tell()
	}
	return err
}

// expect checks that a record still has the revision that the caller read.
func expect(b *bbolt.Bucket, key string, revision uint64) error {
	record, err := get(b, key)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		if revision != 0 {
			return registry.ErrConflict
		}
		return nil
	case err != nil:
		return err
	case record.Revision != revision:
		return registry.ErrConflict
	}
	return nil
}

// tell wakes all calls of Watch.
func (s *Store) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Watch implements registry.Store. No other process can write, so it waits for writes of this
// one, and checks at each tick that the file can still be read.
func (s *Store) Watch(ctx context.Context, prefix string, see func([]registry.Record, bool, time.Time)) error {
	ticker := time.NewTicker(registry.Beat / 2)
	defer ticker.Stop()
	var seen uint64
	for first := true; ; first = false {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		asOf := time.Now()
		now, err := s.sequence()
		if err != nil {
			return err
		}
		if first || now != seen {
			list, err := s.List(ctx, prefix)
			if err != nil {
				return err
			}
			see(list, true, asOf)
		} else {
			see(nil, false, asOf)
		}
		seen = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-ticker.C:
		}
	}
}

// sequence returns the revision of the last write.
func (s *Store) sequence() (n uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		// The memory mapping of a truncated file may still show the old content for a
		// while.
		info, err := os.Stat(s.path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("the file has %d bytes, and %d are needed", info.Size(), tx.Size())
		}
		n = tx.Bucket(records).Sequence()
		return nil
	})
	return n, err
}

const headSize = 8 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key string, revision, value []byte) uint32 {
	sum := crc32.Update(0, castagnoli, []byte(key))
	return crc32.Update(crc32.Update(sum, castagnoli, revision), castagnoli, value)
}

func format(r registry.Record) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, headSize+len(r.Value)), r.Revision)
	b = binary.BigEndian.AppendUint32(b, checksum(r.Key, b, r.Value))
	return append(b, r.Value...)
}

func get(b *bbolt.Bucket, key string) (registry.Record, error) {
	value := b.Get([]byte(key))
	if value == nil {
		return registry.Record{}, registry.ErrNotFound
	}
	return parse(key, value)
}

// parse copies the value, because bbolt's bytes are invalid after the transaction.
func parse(key string, stored []byte) (registry.Record, error) {
	if len(stored) < headSize || binary.BigEndian.Uint32(stored[8:]) != checksum(key, stored[:8], stored[headSize:]) {
		return registry.Record{}, fmt.Errorf("record %q is %w", key, errDamaged)
	}
	return registry.Record{Key: key, Value: slices.Clone(stored[headSize:]), Revision: binary.BigEndian.Uint64(stored)}, nil
}
