package dbuser

import (
	"context"
	"errors"
)

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
