package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// meetingPrefix begins the keys of records for Rendezvous.
const meetingPrefix = "meeting/"

// maxMeeting is the longest value of a Rendezvous. It fits into a record with room to spare.
const maxMeeting = 32 << 10

// meetingTries is how often Rendezvous starts over when others change the record.
const meetingTries = 8

// meetingRecord is the stored form:
//
//	{"version":1,"until":"2026-01-02T03:04:05Z","value":"…base64…"}
type meetingRecord struct {
	Version int       `json:"version"`
	Until   time.Time `json:"until"`
	Value   []byte    `json:"value"`
}

// Rendezvous passes a value between two parties that may be at different servers: a browser and a
// device that wait for each other. Both know id. It calls change with the present value, or nil
// if there is none or its time is over, and stores what change returns, until the given time.
// If change returns nil, nothing is written. change may be called several times, because other
// servers may write between; only the last call counts.
func (r *Registry) Rendezvous(ctx context.Context, id []byte, until time.Time, change func(value []byte) []byte) error {
	key := hashedKey(meetingPrefix, id)
	for range meetingTries {
		old, err := r.config.Store.Get(ctx, key)
		absent := errors.Is(err, ErrNotFound)
		if err != nil && !absent {
			return fmt.Errorf("reading the registry: %w", err)
		}
		var found meetingRecord
		if !absent {
			if err := json.Unmarshal(old.Value, &found); err != nil || found.Version != 1 {
				return fmt.Errorf("reading registry record %s: its form is not known here", key)
			}
			if !r.config.Now().Before(found.Until) {
				found.Value = nil
			}
		}
		value := change(found.Value)
		if value == nil {
			return nil
		}
		if len(value) > maxMeeting {
			return fmt.Errorf("a value of %d bytes is too long to be passed", len(value))
		}
		data, err := json.Marshal(meetingRecord{1, until.UTC().Truncate(time.Second), value})
		if err != nil {
			panic("internal error: " + err.Error())
		}
		if absent {
			_, err = r.config.Store.Create(ctx, key, data)
		} else {
			_, err = r.config.Store.Replace(ctx, old, data)
		}
		switch {
		case errors.Is(err, ErrConflict):
			continue
		case err != nil:
			return fmt.Errorf("writing the registry: %w", err)
		}
		r.tidyOnce(ctx)
		return nil
	}
	return errors.New("writing the registry: the record keeps changing")
}
