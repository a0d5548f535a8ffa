package dbuser

import (
	"context"
	"errors"
	"time"
)

// Admin administers one cluster. Make it with New; safe for concurrent use.
type Admin struct {
	cfg Config
}

// New does no I/O; the first Ensure connects.
func New(cfg Config) *Admin { return &Admin{cfg: cfg} }

// Close ends the standing connections. Calls in progress fail.
func (a *Admin) Close() {}

// SessionEnded says that a session of role in database is over, so that what
// it created is handed to its user. It never blocks.
func (a *Admin) SessionEnded(role, database string) {}

// SweepOptions say what a sweep does.
type SweepOptions struct {
	Unused time.Duration // drop session roles without a logon for this long; 0 drops none
	DryRun bool          // only say what would be done
}

// SweepReport says what a sweep did, or would do.
type SweepReport struct {
	HandedOver []Ownership // owner and database
	Dropped    []string
	Kept       []KeptRole // should go, but cannot: why
}

// Ownership is something of a session role in a database.
type Ownership struct{ Role, User, Database string }

// KeptRole is a session role that could not be handed over or dropped.
type KeptRole struct{ Role, Reason string }

// Sweep hands over what session roles own and drops those that nobody uses.
func (a *Admin) Sweep(ctx context.Context, o SweepOptions) (SweepReport, error) {
	return SweepReport{}, errors.ErrUnsupported
}

// Check looks at the cluster as `daypass cluster check` does.
func (a *Admin) Check(ctx context.Context) (Report, error) { return Report{}, errors.ErrUnsupported }

// Report is what Check found.
type Report struct {
	Cluster  string    `json:"cluster"`
	Findings []Finding `json:"findings"`
}

// Finding is one thing Check found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`
	Message  string   `json:"message"`
	Database string   `json:"database,omitempty"` // where SQL must run; empty: any
	SQL      []string `json:"sql,omitempty"`
	HBA      []string `json:"pg_hba,omitempty"`
}

// Severity of a Finding: "ok", "notice", "warning" or "error".
type Severity string

func (a *Admin) ensure(ctx context.Context, n Need, heal bool) (SessionRole, error) {
	return SessionRole{}, errors.ErrUnsupported
}
