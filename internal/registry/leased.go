package registry

import "context"

// Leased keeps records that last no longer than this process. They are under a lease that the
// process renews. If it crashes, freezes or is cut off, they vanish within the lease's lifetime.
// Safe for concurrent use.
type Leased interface {
	// Held returns the generation of the lease, and whether all records that Swap has written
	// in this generation certainly still exist. When a lease was lost, the next one has a higher
	// generation. Held does not ask the store.
	Held() (generation uint64, ok bool)

	// Look returns all records under prefix.
	Look(ctx context.Context, prefix string) (Sight, error)

	// Swap gives the record own, which is under prefix, a value, or deletes it if value is nil.
	// If any record under prefix was written after since, Swap changes nothing and returns what
	// is there. The zero Mark means that there must be no record. After an error the change may
	// or may not have happened, or may still happen unless the record is written again.
	Swap(ctx context.Context, prefix, own string, value []byte, since Mark) (Sight, error)
}

// Mark is a moment in the history of a store.
type Mark struct {
	Cluster  uint64
	Revision int64
}

// Sight is what was under a prefix at one moment. If Written is set, Swap has made its change at
// this moment, nothing else had changed since its Mark, and Records is empty.
type Sight struct {
	Records    []Record
	At         Mark
	Written    bool
	Generation uint64 // of the lease that Swap has written under
	// Pending means that Swap has changed nothing so far, but that one of its attempts got no
	// answer. That attempt may still take effect, unless the record is written again.
	Pending bool
}
