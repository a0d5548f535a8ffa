package dbuser

import (
	"context"
	"errors"
)

type endedQueue struct{}

// SessionEnded says that a session of role in database is over, so that what
// it created is handed to its user. It never blocks.
func (a *Admin) SessionEnded(role, database string) {}

// SweepOptions say what a sweep does.
type SweepOptions struct {
	Unused int  // placeholder
	DryRun bool // only say what would be done
}

func (a *Admin) wantTrigger(database string, st *state) {}

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
