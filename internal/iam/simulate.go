package iam

import (
	"fmt"
	"strconv"
	"strings"
)

// The types of this file have the member names of IAM's SimulateCustomPolicy, so
// that encoding/json reads and writes the JSON of the AWS CLI.

// SimulateInput is a request of SimulateCustomPolicy.
type SimulateInput struct {
	PolicyInputList                    []string       `json:",omitempty"`
	PermissionsBoundaryPolicyInputList []string       `json:",omitempty"` // one at most
	ActionNames                        []string       `json:",omitempty"`
	ResourceArns                       []string       `json:",omitempty"` // "*" when empty
	ResourcePolicy                     string         `json:",omitempty"` // a role trust policy; needs CallerArn
	ResourceOwner                      string         `json:",omitempty"` // the caller's account when empty
	CallerArn                          string         `json:",omitempty"` // whatever PrincipalFromARN takes
	ContextEntries                     []ContextEntry `json:",omitempty"`
	ResourceHandlingOption             string         `json:",omitempty"` // for Amazon EC2; ignored
	MaxItems                           int            `json:",omitempty"` // 100 when zero, 1000 at most
	Marker                             string         `json:",omitempty"`

	// SessionPolicyInputList is not AWS's: session policies, of which one has
	// to allow. Left out: the caller passed none.
	SessionPolicyInputList []string `json:",omitempty"`
}

// ContextEntry is a condition key with its values.
type ContextEntry struct {
	ContextKeyName   string
	ContextKeyType   string `json:",omitempty"` // string, stringList, numeric, …; a string or list when empty
	ContextKeyValues []string
}

// SimulateOutput is the answer of SimulateCustomPolicy and SimulatePrincipalPolicy.
type SimulateOutput struct {
	EvaluationResults []EvaluationResult
	IsTruncated       bool
	Marker            string `json:",omitempty"`
}

// EvaluationResult is the decision for one action on one resource.
type EvaluationResult struct {
	EvalActionName   string
	EvalResourceName string
	EvalDecision     string // allowed, explicitDeny or implicitDeny
	// MatchedStatements are the statements that determine the result: the
	// Deny statements that match, or else the Allow statements.
	MatchedStatements []MatchedStatement
	// MissingContextValues are the condition keys that the policies use and
	// the context does not have.
	MissingContextValues              []string
	PermissionsBoundaryDecisionDetail *PermissionsBoundaryDecisionDetail `json:",omitempty"`
}

// MatchedStatement is the place of a statement.
type MatchedStatement struct {
	SourcePolicyId   string //nolint:staticcheck // AWS's spelling
	SourcePolicyType string
	// StartPosition is just behind the statement's opening brace and
	// EndPosition just behind the closing one, as AWS counts.
	StartPosition, EndPosition Position
}

// PermissionsBoundaryDecisionDetail is there when a boundary was.
type PermissionsBoundaryDecisionDetail struct {
	AllowedByPermissionsBoundary bool
}

// InputError says what is wrong with a simulation request; AWS's code for it is
// InvalidInput, with status 400.
type InputError struct {
	Member string // of SimulateInput
	Reason string
	Err    error // the *PolicyError of a bad document. Optional
}

// Error has the form "PolicyInputList.1: line 1, column 2: reason".
func (e *InputError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return e.Member + ": " + e.Reason
}

// Unwrap gives the *PolicyError.
func (e *InputError) Unwrap() error { return e.Err }

// Simulation is a set of questions to compiled policies. Simulate makes one from
// documents; SimulatePrincipalPolicy makes one from a principal's policies.
type Simulation struct {
	Policies  Policies
	Principal Principal
	Owner     string // as in Request
	Actions   []string
	Resources []string // "*" when empty
	Context   *Context
	// SourceType gives the SourcePolicyType of a policy: user, group, role,
	// aws-managed, user-managed, resource or none. Optional: none.
	SourceType func(Layer, string) string
}

// Simulate answers SimulateCustomPolicy. The context is taken exactly as given,
// for every action. The error is an *InputError.
//
// Beyond AWS's simulator it takes role sessions and identity providers as
// CallerArn, role trust policies as ResourcePolicy, and session policies.
func Simulate(in *SimulateInput) (*SimulateOutput, error) {
	s, err := in.compile()
	if err != nil {
		return nil, err
	}
	return page(s.Run(), in.MaxItems, in.Marker)
}

// Run evaluates every action on every resource, actions first.
func (s *Simulation) Run() []EvaluationResult {
	resources := s.Resources
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	missing := s.Policies.MissingContextKeys(s.Context)
	if missing == nil {
		missing = []string{}
	}
	results := make([]EvaluationResult, 0, len(s.Actions)*len(resources))
	for _, action := range s.Actions {
		for _, resource := range resources {
			r := &Request{Principal: s.Principal, Action: action, Resource: resource, Owner: s.Owner, Context: s.Context}
			d := s.Policies.Evaluate(r)
			result := EvaluationResult{
				EvalActionName:       action,
				EvalResourceName:     resource,
				EvalDecision:         d.Effect.String(),
				MatchedStatements:    s.matched(r, d),
				MissingContextValues: missing,
			}
			if b := s.Policies.Boundary; b != nil {
				alone := Policies{Identity: []*Policy{b}}
				result.PermissionsBoundaryDecisionDetail = &PermissionsBoundaryDecisionDetail{alone.Evaluate(r).Allowed()}
			}
			results = append(results, result)
		}
	}
	return results
}

func (s *Simulation) matched(r *Request, d Decision) []MatchedStatement {
	matched := []MatchedStatement{}
	for _, m := range s.Policies.Trace(r) {
		if !m.Matched || m.Allow != (d.Effect != ExplicitDeny) {
			continue
		}
		kind := "none"
		if s.SourceType != nil {
			kind = s.SourceType(m.Layer, m.Policy)
		}
		matched = append(matched, MatchedStatement{
			SourcePolicyId:   m.Policy,
			SourcePolicyType: kind,
			StartPosition:    Position{m.Start.Line, m.Start.Column + 1},
			EndPosition:      m.End,
		})
	}
	return matched
}

// page cuts the results as MaxItems and Marker ask. The marker is the number of
// results before it.
func page(results []EvaluationResult, maxItems int, marker string) (*SimulateOutput, error) {
	if maxItems == 0 {
		maxItems = 100
	}
	if maxItems < 1 || maxItems > 1000 {
		return nil, &InputError{Member: "MaxItems", Reason: "not between 1 and 1000"}
	}
	from := 0
	if marker != "" {
		var err error
		if from, err = strconv.Atoi(marker); err != nil || from < 0 || from > len(results) {
			return nil, &InputError{Member: "Marker", Reason: "not one that was handed out"}
		}
	}
	out := &SimulateOutput{EvaluationResults: results[from:]}
	if len(out.EvaluationResults) > maxItems {
		out.EvaluationResults = out.EvaluationResults[:maxItems]
		out.IsTruncated, out.Marker = true, strconv.Itoa(from+maxItems)
	}
	return out, nil
}

func (in *SimulateInput) compile() (*Simulation, error) {
	s := &Simulation{Actions: in.ActionNames, Resources: in.ResourceArns, Owner: in.ResourceOwner}
	var err error
	if s.Policies.Identity, err = parseList("PolicyInputList", in.PolicyInputList); err != nil {
		return nil, err
	}
	if s.Policies.Session, err = parseList("SessionPolicyInputList", in.SessionPolicyInputList); err != nil {
		return nil, err
	}
	boundaries, err := parseList("PermissionsBoundaryPolicyInputList", in.PermissionsBoundaryPolicyInputList)
	if err != nil {
		return nil, err
	}
	if len(boundaries) > 1 {
		return nil, &InputError{Member: "PermissionsBoundaryPolicyInputList", Reason: "there can be one permissions boundary only"}
	}
	if len(boundaries) == 1 {
		s.Policies.Boundary = boundaries[0]
	}
	if err := in.compileCaller(s); err != nil {
		return nil, err
	}
	if err := checkQuestions(in.ActionNames, in.ResourceArns); err != nil {
		return nil, err
	}
	if s.Context, err = NewContextFromEntries(in.ContextEntries); err != nil {
		return nil, err
	}
	return s, nil
}

func parseList(member string, documents []string) ([]*Policy, error) {
	var policies []*Policy
	for i, document := range documents {
		p, err := ParsePolicy(IdentityPolicy, fmt.Sprintf("%s.%d", member, i+1), []byte(document))
		if err != nil {
			return nil, &InputError{Member: member, Err: err}
		}
		policies = append(policies, p)
	}
	return policies, nil
}

func (in *SimulateInput) compileCaller(s *Simulation) error {
	if in.CallerArn != "" {
		p, err := PrincipalFromARN(in.CallerArn)
		if err != nil {
			return &InputError{Member: "CallerArn", Reason: err.Error()}
		}
		s.Principal = p
	}
	if owner := in.ResourceOwner; owner != "" {
		if arn, err := ParseARN(owner); err == nil {
			owner = arn.Account
		}
		if !isAccount(owner) {
			return &InputError{Member: "ResourceOwner", Reason: "neither an account nor the ARN of one"}
		}
		s.Owner = owner
	} else {
		s.Owner = s.Principal.Account
	}
	if in.ResourcePolicy == "" {
		return nil
	}
	if in.CallerArn == "" {
		return &InputError{Member: "CallerArn", Reason: "needed with a ResourcePolicy"}
	}
	p, err := ParsePolicy(TrustPolicy, "ResourcePolicy", []byte(in.ResourcePolicy))
	if err != nil {
		return &InputError{Member: "ResourcePolicy", Err: err}
	}
	s.Policies.Resource = p
	return nil
}

func checkQuestions(actions, resources []string) error {
	if len(actions) == 0 {
		return &InputError{Member: "ActionNames", Reason: "there has to be an action"}
	}
	for _, a := range actions {
		if checkAction(a) != nil || strings.ContainsAny(a, "*?") {
			return &InputError{Member: "ActionNames", Reason: fmt.Sprintf("%q is not the full name of an action, as in redshift:JoinGroup", a)}
		}
	}
	for _, r := range resources {
		if _, err := ParseARN(r); r != "*" && err != nil {
			return &InputError{Member: "ResourceArns", Reason: fmt.Sprintf("%q is neither an ARN nor *", r)}
		}
	}
	return nil
}

// NewContextFromEntries makes a context of AWS's ContextEntries. A list type makes
// the key multivalued, and so do several values. The error is an *InputError: a
// type that does not exist, or a value that is not of its type.
func NewContextFromEntries(entries []ContextEntry) (*Context, error) {
	ctx := NewContext()
	for _, e := range entries {
		fail := func(format string, args ...any) error {
			return &InputError{Member: "ContextEntries", Reason: fmt.Sprintf("%q: ", e.ContextKeyName) + fmt.Sprintf(format, args...)}
		}
		if e.ContextKeyName == "" {
			return nil, fail("the key needs a name")
		}
		kind, list := strings.CutSuffix(e.ContextKeyType, "List")
		readable, known := contextType(kind)
		if !known {
			return nil, fail("%q is not a context key type", e.ContextKeyType)
		}
		for _, v := range e.ContextKeyValues {
			if !readable(v) {
				return nil, fail("a value is not of the type %s", kind)
			}
		}
		if list || len(e.ContextKeyValues) != 1 {
			ctx.SetList(e.ContextKeyName, e.ContextKeyValues)
		} else {
			ctx.Set(e.ContextKeyName, e.ContextKeyValues[0])
		}
	}
	return ctx, nil
}

// contextType is how to tell a value of a ContextKeyType.
func contextType(kind string) (readable func(string) bool, known bool) {
	switch kind {
	case "", "string":
		return func(string) bool { return true }, true
	case "numeric":
		return func(v string) bool { _, ok := parseDecimal(v); return ok }, true
	case "boolean":
		return func(v string) bool { _, ok := parseBool(v); return ok }, true
	case "ip":
		return func(v string) bool { _, ok := parseAddr(v); return ok }, true
	case "binary":
		return canonicalBase64, true
	case "date":
		return func(v string) bool { _, ok := parseInstant(v); return ok }, true
	}
	return nil, false
}
