package registry

import (
	"context"
	"errors"
)

// Store keeps records that every node of an installation agrees on. It is
// compare-and-swap: nobody overwrites what he has not seen.
//
// A key is 1 to 1024 bytes of printable ASCII, a value at most 64 KiB; both are
// the caller's to keep. Records are values: neither side changes a slice that it
// has handed over. A revision is not zero, grows with every write of the store,
// and is never given twice, so that a record that was deleted and made again has
// another one.
//
// A method that returns nil has persisted what it did: it is there after a crash
// of the process or the machine, and whoever reads on any node sees it. One that
// returns ErrNotFound or ErrConflict has changed nothing. After any other error of
// a write it is open whether the write happened; who needs to know reads again.
//
// Stores are safe for concurrent use.
type Store interface {
	// Get returns a record, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)

	// List returns the records whose keys begin with prefix, sorted by key
	// bytewise, as they were at one moment.
	List(ctx context.Context, prefix string) ([]Record, error)

	// Create makes a record and returns it with its revision. ErrConflict: there
	// is one with this key.
	Create(ctx context.Context, key string, value []byte) (Record, error)

	// Replace gives old a new value and returns it with its new revision.
	// ErrConflict: the record is not at old's revision any more, or is gone.
	Replace(ctx context.Context, old Record, value []byte) (Record, error)

	// Delete removes old. ErrConflict: as for Replace.
	Delete(ctx context.Context, old Record) error

	// Watch tells what is under prefix for as long as it is certain of it. It
	// calls see at once with all records (changed is true), again with all
	// records soon after each change, and with none at least every Beat while
	// nothing has changed, which says that what was seen last still holds.
	// Changes in quick succession may be told as one. What this process wrote is
	// told within milliseconds, what another one wrote within a second.
	//
	// Watch returns ctx's error when ctx is done, and another one as soon as it
	// cannot read or cannot be certain any more; it does not try again. Calls of
	// see come one after the other, and none after Watch has returned.
	Watch(ctx context.Context, prefix string, see func(records []Record, changed bool)) error
}

// Record is one entry of a Store.
type Record struct {
	Key      string
	Value    []byte
	Revision uint64
}

// What the methods of a Store return beside errors of their own.
var (
	ErrNotFound = errors.New("registry: no such record")
	ErrConflict = errors.New("registry: the record has changed")
)
