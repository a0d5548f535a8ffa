package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// oncePrefix begins the keys of records for UseOnce.
const oncePrefix = "used/"

// onceMargin is how long a record is kept after its time, because clocks disagree.
const onceMargin = 5 * time.Minute

// onceTidied is the time between two searches for expired records.
const onceTidied = time.Minute

// usedRecord is the stored form: {"version":1,"until":"2026-01-02T03:04:05Z"}.
type usedRecord struct {
	Version int       `json:"version"`
	Until   time.Time `json:"until"`
}

// hashedKey returns the key of a record about an id, which may be secret or too long for a key.
func hashedKey(prefix string, id []byte) string {
	sum := sha256.Sum256(id)
	return prefix + hex.EncodeToString(sum[:])
}

// ErrUsed is returned by UseOnce for an id that has been used.
var ErrUsed = errors.New("registry: it has been used")

// UseOnce marks an id as used, on all servers. It returns nil the first time, and ErrUsed
// after that, at least until the given time, at which the caller has to stop accepting the
// id. After any other error the caller must not accept it either.
func (r *Registry) UseOnce(ctx context.Context, id []byte, until time.Time) error {
	value, err := json.Marshal(usedRecord{1, until.UTC().Truncate(time.Second)})
	if err != nil {
		panic("internal error: " + err.Error())
	}
	_, err = r.config.Store.Create(ctx, hashedKey(oncePrefix, id), value)
	switch {
	case errors.Is(err, ErrConflict):
		return ErrUsed
	case err != nil:
		return fmt.Errorf("writing the registry: %w", err)
	}
	r.tidyOnce(ctx)
	return nil
}

// Used reports whether UseOnce has marked an id as used. If it returns an error, the id must not
// be accepted.
func (r *Registry) Used(ctx context.Context, id []byte) (bool, error) {
	_, err := r.config.Store.Get(ctx, hashedKey(oncePrefix, id))
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the registry: %w", err)
	}
	return true, nil
}

// tidyOnce deletes expired records of UseOnce and Rendezvous. Errors do not matter: a later call
// tries again.
func (r *Registry) tidyOnce(ctx context.Context) {
	now := time.Since(r.begun)
	last := r.onceTidied.Load()
	if now-time.Duration(last) < onceTidied || !r.onceTidied.CompareAndSwap(last, int64(now)) {
		return
	}
	for _, prefix := range []string{oncePrefix, meetingPrefix} {
		records, err := r.config.Store.List(ctx, prefix)
		if err != nil {
			return
		}
		for _, record := range records {
			var used usedRecord // both have its fields
			if json.Unmarshal(record.Value, &used) == nil && used.Version == 1 && r.config.Now().After(used.Until.Add(onceMargin)) {
				_ = r.config.Store.Delete(ctx, record)
			}
		}
	}
}
