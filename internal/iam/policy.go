package iam

import (
	"fmt"
	"strconv"
)

// Kind is the grammar of a policy document.
type Kind int

const (
	// IdentityPolicy is a document about what its holder may do: an inline or
	// managed policy of a user, group or IAM role, a permissions boundary, a
	// session policy. Its statements name resources and no principals.
	IdentityPolicy Kind = iota
	// TrustPolicy is the document of an IAM role that defines who may assume it. Its
	// statements name principals, not resources.
	TrustPolicy
)

func (k Kind) String() string {
	if k == TrustPolicy {
		return "role trust policy"
	}
	return "identity-based policy"
}

// Quotas on the size of documents, in the characters that Policy.Size counts (UG
// reference_iam-quotas). ParsePolicy does not enforce them, because they depend on
// where the document is used, and configuration files have none.
const (
	MaxManagedPolicySize = 6144
	MaxTrustPolicySize   = 2048
	MaxSessionPolicySize = 2048
)

// Position is a place in a document: line and column count from 1, the column
// in characters.
type Position struct {
	Line, Column int
}

// PolicyError describes a violation of the policy grammar.
type PolicyError struct {
	Policy       string // the name given to ParsePolicy
	Line, Column int
	Path         string // such as "Statement[0].Condition.StringEquals"; empty for the whole document
	Reason       string
}

// Error has the form "policy: line 3, column 5: Statement[0].Effect: reason".
func (e *PolicyError) Error() string {
	return located(e.Policy, e.Line, e.Column, e.Path, e.Reason)
}

// Warning describes a part of a valid document that is probably a mistake.
type Warning PolicyError

// String has the form of PolicyError.Error.
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
	name      string
	kind      Kind
	size      int
	variables bool // the document's version has policy variables
	at        Position
	// Both lists are in the order of the document.
	allows, denies []*statement
	statements     []*statement
}

// statement is one statement, compiled.
type statement struct {
	sid        string
	index      int
	allow      bool
	start, end Position
	path       string

	actions      []entry
	known        uint64 // bits for the rows of the table of actions that the element matches
	notAction    bool
	resources    []entry
	notResource  bool
	anyResource  bool // Resource: "*"
	principals   *principals
	conditions   []condition
	hasCondition bool    // it has an element Condition, which may be empty
	unfilled     []place // the Condition element, or operators in it, that are empty
}

// place is the position of a part of a statement. Its path is built on demand, since a
// document has thousands of parts and few warnings.
type place struct {
	at    Position
	in    *statement
	name  string // of the statement's element
	index int    // in the element's list; -1 where it is no list
}

// placeOf returns the place of a value in an element of a statement.
func placeOf(value, element *node, s *statement) place {
	p := place{at: value.start, in: s, name: element.name, index: -1}
	if value != element {
		p.index = value.index
	}
	return p
}

func (p *place) path() string {
	path := p.in.path + "." + p.name
	if p.index >= 0 {
		path += "[" + strconv.Itoa(p.index) + "]"
	}
	return path
}

// entry is one action or resource as written and as compiled.
type entry struct {
	pattern
	place
	// never is set for an entry that must not match anything: in an Allow, one with a wildcard
	// where the resource type should be.
	never bool
}

// ParsePolicy reads and compiles a JSON policy document. The name is for
// decisions and messages. The error is a *PolicyError: the document is not what
// UG reference_policies_grammar and the pages on the elements describe.
func ParsePolicy(kind Kind, name string, document []byte) (*Policy, error) {
	p := &Policy{name: name, kind: kind}
	if err := p.parse(document); err != nil {
		err.Policy = name
		return nil, err
	}
	return p, nil
}

// Name returns the name given to ParsePolicy.
func (p *Policy) Name() string { return p.name }

// Kind returns the kind given to ParsePolicy.
func (p *Policy) Kind() Kind { return p.kind }

// Size returns the document's length in characters without white space between the
// tokens, which is how IAM's quotas count.
func (p *Policy) Size() int { return p.size }

// ContextKeys returns the condition keys that the document uses, in conditions or as
// variables, each once, as first written, in the order of the document.
func (p *Policy) ContextKeys() []string {
	var keys []string
	seen := make(map[string]bool)
	add := func(lower, name string) {
		if !seen[lower] {
			seen[lower] = true
			keys = append(keys, name)
		}
	}
	variable := func(v *variable) { add(v.key, v.name) }
	for _, s := range p.statements {
		for i := range s.resources {
			s.resources[i].variables(variable)
		}
		for i := range s.conditions {
			c := &s.conditions[i]
			add(c.key, c.name)
			for j := range c.texts {
				c.texts[j].variables(variable)
			}
			for j := range c.arns {
				for k := range c.arns[j].parts {
					c.arns[j].parts[k].variables(variable)
				}
			}
		}
	}
	return keys
}
