package registry

import (
	"context"
	"errors"
	"time"
)

// Store keeps records that all servers of an installation share. Writes are compare-and-swap:
// a writer can replace only the version that it has read.
//
// A key is 1 to 1024 bytes of printable ASCII, and a value at most 64 KiB; the caller must
// respect both. Records are values: neither side changes a slice that it has handed over. A
// revision is not zero, grows with every write to the store, and is never reused, so a record
// that is deleted and created again has a different one.
//
// A method that returns nil has persisted its change: it survives a crash of the
// process or the machine, and readers on any server see it. ErrNotFound and ErrConflict
// mean that nothing changed. After any other error of a write the change may or may not
// have happened; read again to find out.
//
// Stores are safe for concurrent use.
type Store interface {
	// Get returns a record, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)

	// List returns the records whose keys begin with prefix, sorted by key
	// bytewise, as they were at one moment.
	List(ctx context.Context, prefix string) ([]Record, error)

	// Create makes a record and returns it with its revision. It returns ErrConflict if
	// the key exists.
	Create(ctx context.Context, key string, value []byte) (Record, error)

	// Replace gives old a new value and returns it with its new revision. It returns
	// ErrConflict if the record was changed or deleted since.
	Replace(ctx context.Context, old Record, value []byte) (Record, error)

	// Delete removes old. ErrConflict means the same as for Replace.
	Delete(ctx context.Context, old Record) error

	// Watch reports the records under prefix for as long as it can be sure of them. It calls
	// see at once with all records and changed set, and again soon after each change. At
	// least every Beat it calls see without records, which confirms the last ones. Changes in
	// quick succession may be reported together. This process's own changes are reported
	// within milliseconds, others within a second.
	//
	// asOf is a time before the store was asked: whatever was written by then is in the
	// records. It never goes back. A deleted record may be reported for one answer more. The
	// caller has to compare asOf with the time at which it uses the records, see Age: the
	// process may be stopped for any time between the answer and its use.
	//
	// Watch returns ctx's error when ctx is done, and another error as soon as it cannot read
	// or can no longer be sure; it does not retry. Calls of see do not overlap, and there are
	// none after Watch has returned.
	Watch(ctx context.Context, prefix string, see func(records []Record, changed bool, asOf time.Time)) error
}

// Record is one entry of a Store.
type Record struct {
	Key      string
	Value    []byte
	Revision uint64
}

// Age returns how long ago a moment was, which this process read from time.Now. It includes the
// time for which the process was stopped or the machine was suspended. The monotonic clock stands
// still during a suspend and the wall clock may be set back, so Age returns the longer of the two
// durations.
func Age(of time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(of), now.Round(0).Sub(of.Round(0)))
}

// Errors that the methods of every Store return, besides errors of its own.
var (
	ErrNotFound = errors.New("registry: no such record")
	ErrConflict = errors.New("registry: the record has changed")
)
