// Package handover looks after a cluster once sessions have ended: a session role
// without a session loses its rights (strip), what it owns goes to its database user
// (hand over), and roles that no one uses are dropped (sweep). It also drops a
// database user for good.
//
// Each of these is a series of small transactions that may be repeated. A transaction reads the
// current state just before it acts, and takes "already gone" for success. A holder can
// delay what concerns their own objects, and nothing else.
package handover

import (
	"context"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
)

// maxEnded bounds the remembered session roles, of each kind.
const maxEnded = 10000

// Admin administers one cluster: what dbuser.Admin does before and during a logon, and the
// clean-up after it. Make it with New; safe for concurrent use.
type Admin struct {
	*dbuser.Admin

	base   context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // what runs behind the callers

	mu      sync.Mutex // guards what follows
	closed  bool
	ended   endedQueue
	retries map[string]*retry // session roles that could not be cleared
}

// New does no I/O; the first call that needs a connection connects.
func New(cfg dbuser.Config) *Admin {
	a := &Admin{Admin: dbuser.New(cfg), retries: map[string]*retry{},
		ended: endedQueue{until: map[string]time.Time{}, left: map[string][]leftBackend{}, revoked: map[string]*revocation{}}}
	a.base, a.cancel = context.WithCancel(context.Background())
	return a
}
