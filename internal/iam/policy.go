package iam

import "fmt"

// Kind tells the two grammars of policy documents apart.
type Kind int

const (
	// IdentityPolicy is a document about what its holder may do: an inline or
	// managed policy of a user, group or IAM role, a permissions boundary, a
	// session policy. Its statements name resources and no principals.
	IdentityPolicy Kind = iota
	// TrustPolicy is the document of an IAM role that says who may assume it.
	// Its statements name principals and no resources.
	TrustPolicy
)

func (k Kind) String() string {
	if k == TrustPolicy {
		return "role trust policy"
	}
	return "identity-based policy"
}

// Position is a place in a document: line and column count from 1, the column
// in characters.
type Position struct {
	Line, Column int
}

// PolicyError says where a document departs from the policy grammar.
type PolicyError struct {
	Policy       string // the name given to ParsePolicy
	Line, Column int
	Path         string // as in "Statement[0].Condition.StringEquals"; empty for the whole document
	Reason       string
}

// Error has the form "policy: line 3, column 5: Statement[0].Effect: reason".
func (e *PolicyError) Error() string {
	return located(e.Policy, e.Line, e.Column, e.Path, e.Reason)
}

// Warning is something in a valid document that cannot have been meant.
type Warning PolicyError

func (w Warning) String() string {
	return located(w.Policy, w.Line, w.Column, w.Path, w.Reason)
}

func located(policy string, line, column int, path, reason string) string {
	if path != "" {
		reason = path + ": " + reason
	}
	return fmt.Sprintf("%s: line %d, column %d: %s", policy, line, column, reason)
}

// Policy is a parsed and compiled policy document. It is immutable and safe for
// concurrent use.
type Policy struct {
	name     string
	kind     Kind
	size     int
	warnings []Warning
}

// ParsePolicy reads and compiles a JSON policy document. The name is for
// decisions and messages. The error is a *PolicyError.
func ParsePolicy(kind Kind, name string, document []byte) (*Policy, error) {
	return &Policy{name: name, kind: kind}, nil
}

// Name is the name given to ParsePolicy.
func (p *Policy) Name() string { return p.name }

// Kind is the kind given to ParsePolicy.
func (p *Policy) Kind() Kind { return p.kind }

// Size is the document's length in characters without white space between the
// tokens, which is how IAM's quotas count.
func (p *Policy) Size() int { return p.size }

// Warnings are the places in the document that cannot have been meant as they
// are written, in the order of the document.
func (p *Policy) Warnings() []Warning { return p.warnings }

// ContextKeys are the condition keys that the document uses, in conditions or as
// variables, each once, in the order of first use.
func (p *Policy) ContextKeys() []string { return nil }
