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

// oncePrefix is of the records of what may be used once.
const oncePrefix = "used/"

// onceMargin is how long a record is kept beyond its end, for clocks that disagree.
const onceMargin = 5 * time.Minute

// onceTidied is how often records that are over are looked for.
const onceTidied = time.Minute

// usedRecord is the form of a record: {"version":1,"until":"2026-01-02T03:04:05Z"}.
type usedRecord struct {
	Version int       `json:"version"`
	Until   time.Time `json:"until"`
}

// ErrUsed is returned by UseOnce for what has been used.
var ErrUsed = errors.New("registry: it has been used")

// UseOnce uses something up, on all servers: it returns nil once for each id, and ErrUsed
// from then on until the time at which the caller no longer takes it. After any other
// error it must not be taken.
func (r *Registry) UseOnce(ctx context.Context, id []byte, until time.Time) error {
	value, err := json.Marshal(usedRecord{1, until.UTC().Truncate(time.Second)})
	if err != nil {
		panic("internal error: " + err.Error())
	}
	sum := sha256.Sum256(id)
	_, err = r.config.Store.Create(ctx, oncePrefix+hex.EncodeToString(sum[:]), value)
	switch {
	case errors.Is(err, ErrConflict):
		return ErrUsed
	case err != nil:
		return fmt.Errorf("writing the registry: %w", err)
	}
	r.tidyOnce(ctx)
	return nil
}

// tidyOnce deletes used codes that are too old to be accepted. Errors do not matter: a later
// call tries again.
func (r *Registry) tidyOnce(ctx context.Context) {
	now := time.Since(r.begun)
	last := r.onceTidied.Load()
	if now-time.Duration(last) < onceTidied || !r.onceTidied.CompareAndSwap(last, int64(now)) {
		return
	}
	records, err := r.config.Store.List(ctx, oncePrefix)
	if err != nil {
		return
	}
	for _, record := range records {
		var used usedRecord
		if json.Unmarshal(record.Value, &used) == nil && used.Version == 1 && r.config.Now().After(used.Until.Add(onceMargin)) {
			_ = r.config.Store.Delete(ctx, record)
		}
	}
}
