package iam

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a simulation that AWS does not have.
const (
	// maxSimulated limits the number of combinations of actions and resources.
	maxSimulated = 10_000
	// MaxSimulateOutput limits the size of a page in bytes, as XML.
	MaxSimulateOutput = 1 << 20
	// maxPageWork is the number of steps of work after which a page ends.
	maxPageWork = 1 << 22
)

// The types of this file have the member names of IAM's SimulateCustomPolicy, so that
// encoding/json reads and writes the AWS CLI's JSON.

// SimulateInput is a request of SimulateCustomPolicy or, without the principal, of
// SimulatePrincipalPolicy.
type SimulateInput struct {
	PolicyInputList                    []string       `json:",omitempty"` // needed, unless there is a source or a ResourcePolicy
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

	// SessionPolicyInputList is not AWS's: session policies, one of which has to allow.
	// Leave it out if the caller passed none.
	SessionPolicyInputList []string `json:",omitempty"`
	// Explain asks for the decisions and the near misses, which are not AWS's.
	Explain bool `json:"-"`
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
	// MatchedStatements are the statements that determine the result: the matching Deny
	// statements or, without one, the Allow statements.
	MatchedStatements []MatchedStatement
	// MissingContextValues are the condition keys that the policies use and
	// the context does not have.
	MissingContextValues              []string
	PermissionsBoundaryDecisionDetail *PermissionsBoundaryDecisionDetail `json:",omitempty"`

	// Decision is the decision itself, and NearMisses are the statements that nearly allow the
	// request. Both are set for SimulateInput.Explain only.
	Decision   Decision   `json:"-"`
	NearMisses []NearMiss `json:"-"`
}

// MatchedStatement is the place of a statement.
type MatchedStatement struct {
	SourcePolicyId   string //nolint:staticcheck // AWS's spelling
	SourcePolicyType string // user or role: the source's own; resource: the ResourcePolicy; else none
	// StartPosition is right after the statement's opening brace and EndPosition right
	// after the closing one, as AWS counts.
	StartPosition, EndPosition Position
}

// PermissionsBoundaryDecisionDetail is set if there is a boundary.
type PermissionsBoundaryDecisionDetail struct {
	AllowedByPermissionsBoundary bool
}

// InputError is the reason why a simulation request is invalid; AWS's code for it is
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

// PolicySource is the IAM user or role that SimulatePrincipalPolicy is about.
type PolicySource struct {
	Type      string // user or role
	Policies  *Policies
	Principal Principal // the caller without a CallerArn
	// Context has the condition keys that the source always has. A key in ContextEntries replaces
	// the one here.
	Context *Context
}

// Simulate answers SimulateCustomPolicy and, with a source, SimulatePrincipalPolicy. It
// uses exactly the given context for every action. Between decisions it checks ctx and
// returns its error. All other errors are an *InputError.
//
// Unlike AWS's simulator it accepts role sessions and identity providers as CallerArn,
// role trust policies as ResourcePolicy, and session policies.
func Simulate(ctx context.Context, in *SimulateInput, source *PolicySource) (*SimulateOutput, error) {
	s, err := in.compile(source)
	if err != nil {
		return nil, err
	}
	s.explain = in.Explain
	return s.page(ctx, in)
}

// simulation is a set of questions to compiled policies.
type simulation struct {
	policies  Policies
	principal Principal
	owner     string // as in Request
	actions   []string
	resources []string
	context   *Context
	source    *PolicySource // optional
	explain   bool          // find near misses

	work work // done for the page
}

// page answers as many questions, in the order of the actions, as MaxItems and the limits allow.
// The marker is the number of questions before the page.
func (s *simulation) page(ctx context.Context, in *SimulateInput) (*SimulateOutput, error) {
	from, total := 0, len(s.actions)*len(s.resources)
	maxItems := in.MaxItems
	if maxItems == 0 {
		maxItems = 100
	}
	if maxItems < 1 || maxItems > 1000 {
		return nil, &InputError{Member: "MaxItems", Reason: "not between 1 and 1000"}
	}
	if in.Marker != "" {
		var err error
		if from, err = strconv.Atoi(in.Marker); err != nil || from < 0 || from > total {
			return nil, &InputError{Member: "Marker", Reason: "not one that was handed out"}
		}
	}
	missing := s.policies.MissingContextKeys(s.context)
	if missing == nil {
		missing = []string{} // which JSON writes as []
	}
	missingSize := 0
	for _, key := range missing {
		missingSize += len("<member></member>") + textSize(key)
	}
	out := &SimulateOutput{EvaluationResults: []EvaluationResult{}}
	size := 0
	for i := from; i < total && i-from < maxItems; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		result, err := s.evaluate(s.actions[i/len(s.resources)], s.resources[i%len(s.resources)])
		if err != nil {
			return nil, err
		}
		result.MissingContextValues = missing
		one := result.size() + missingSize
		if one > MaxSimulateOutput {
			return nil, &InputError{Member: "PolicyInputList", Reason: fmt.Sprintf("what there is to say of one action has more than %d bytes", MaxSimulateOutput)}
		}
		if size += one; size > MaxSimulateOutput {
			break
		}
		out.EvaluationResults = append(out.EvaluationResults, result)
		if s.work > maxPageWork {
			break
		}
	}
	if next := from + len(out.EvaluationResults); next < total {
		out.IsTruncated, out.Marker = true, strconv.Itoa(next)
	}
	return out, nil
}

// size returns a lower bound of the result's size as XML, without the missing context
// values.
func (r *EvaluationResult) size() int {
	const names, statement = 400, 300 // of the elements around the values
	size := names + textSize(r.EvalActionName) + textSize(r.EvalResourceName)
	for i := range r.MatchedStatements {
		size += statement + textSize(r.MatchedStatements[i].SourcePolicyId)
	}
	return size
}

// textSize returns a lower bound of a text's size in XML, where a quotation mark takes
// five characters.
func textSize(s string) int {
	size := len(s)
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7F || strings.IndexByte(`<>&'"`, c) >= 0 {
			size += 5
		}
	}
	return size
}

// evaluate answers one question.
func (s *simulation) evaluate(action, resource string) (EvaluationResult, error) {
	r := &Request{Principal: s.principal, Action: action, Resource: resource, Owner: s.owner, Context: s.context}
	// The API treats a call without DbName as a request for every database.
	if strings.EqualFold(action, getCredentialsWithIAM) && strings.HasSuffix(resource, "/*") && len(s.context.Lookup(databaseKey)) == 0 {
		r.Every, r.EveryKey = true, databaseKey
	}
	decided, looked := newQuery(r), newQuery(r)
	d := s.policies.evaluate(&decided)
	result := EvaluationResult{
		EvalActionName:    action,
		EvalResourceName:  resource,
		EvalDecision:      d.Effect.String(),
		MatchedStatements: s.matched(&looked, d.Effect != ExplicitDeny),
	}
	if s.explain {
		result.Decision = d
		if d.Effect == ImplicitDeny {
			result.NearMisses = s.policies.NearMisses(d.Layer, r)
		}
	}
	if boundary := s.policies.Boundary; boundary != nil {
		alone, limited := Policies{Identity: []*Policy{boundary}}, newQuery(r)
		result.PermissionsBoundaryDecisionDetail = &PermissionsBoundaryDecisionDetail{alone.evaluate(&limited).Allowed()}
		s.work += limited.work
	}
	s.work += decided.work + looked.work
	if decided.work.spent() || looked.work.spent() {
		return result, &InputError{Member: "PolicyInputList", Reason: fmt.Sprintf("deciding %s takes too many steps, with wildcards in policies and long values in the request", action)}
	}
	return result, nil
}

// matched returns the matching statements with an effect. Allow statements are included even if
// the request is denied.
func (s *simulation) matched(q *query, allow bool) []MatchedStatement {
	matched := []MatchedStatement{}
	s.policies.each(func(layer Layer, p *Policy) {
		list := p.denies
		if allow {
			list = p.allows
		}
		for _, one := range list {
			if q.work.spent() || !one.matches(q) && (allow || !q.Every || !one.mayDeny(q)) {
				continue
			}
			matched = append(matched, MatchedStatement{
				SourcePolicyId:   p.name,
				SourcePolicyType: s.typeOf(layer, p),
				StartPosition:    Position{one.start.Line, one.start.Column + 1},
				EndPosition:      one.end,
			})
		}
	})
	return matched
}

// typeOf returns where a policy comes from, in the simulator's words.
func (s *simulation) typeOf(layer Layer, p *Policy) string {
	switch {
	case layer == TrustLayer:
		return "resource"
	case s.source != nil && (p == s.source.Policies.Boundary || slices.Contains(s.source.Policies.Identity, p)):
		return s.source.Type
	}
	return "none"
}

func (in *SimulateInput) compile(source *PolicySource) (*simulation, error) {
	s := &simulation{actions: in.ActionNames, resources: in.ResourceArns, source: source, context: NewContext()}
	if source != nil {
		s.policies, s.principal, s.context = *source.Policies, source.Principal, source.Context.Clone()
	}
	identity, err := parseList("PolicyInputList", in.PolicyInputList)
	if err != nil {
		return nil, err
	}
	s.policies.Identity = append(slices.Clip(s.policies.Identity), identity...)
	if session, err := parseList("SessionPolicyInputList", in.SessionPolicyInputList); err != nil {
		return nil, err
	} else if session != nil {
		s.policies.Session = session
	}
	boundaries, err := parseList("PermissionsBoundaryPolicyInputList", in.PermissionsBoundaryPolicyInputList)
	if err != nil {
		return nil, err
	}
	if len(boundaries) > 1 {
		return nil, &InputError{Member: "PermissionsBoundaryPolicyInputList", Reason: "there can be one permissions boundary only"}
	}
	if len(boundaries) == 1 {
		s.policies.Boundary = boundaries[0]
	}
	if err := in.compileCaller(s); err != nil {
		return nil, err
	}
	if err := checkQuestions(in.ActionNames, in.ResourceArns); err != nil {
		return nil, err
	}
	if len(s.resources) == 0 {
		s.resources = []string{"*"}
	}
	if source == nil && len(identity) == 0 && in.ResourcePolicy == "" {
		return nil, &InputError{Member: "PolicyInputList", Reason: "there has to be a policy"}
	}
	return s, addEntries(s.context, in.ContextEntries)
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

func (in *SimulateInput) compileCaller(s *simulation) error {
	if in.CallerArn != "" {
		p, err := PrincipalFromARN(in.CallerArn)
		if err != nil {
			return &InputError{Member: "CallerArn", Reason: err.Error()}
		}
		s.principal = p
	}
	s.owner = s.principal.Account
	if owner := in.ResourceOwner; owner != "" {
		if arn, err := ParseARN(owner); err == nil {
			owner = arn.Account
		}
		if !isAccount(owner) {
			return &InputError{Member: "ResourceOwner", Reason: "neither an account nor the ARN of one"}
		}
		s.owner = owner
	}
	if in.ResourcePolicy == "" {
		return nil
	}
	if in.CallerArn == "" && s.source == nil {
		return &InputError{Member: "CallerArn", Reason: "needed with a ResourcePolicy"}
	}
	p, err := ParsePolicy(TrustPolicy, "ResourcePolicy", []byte(in.ResourcePolicy))
	if err != nil {
		return &InputError{Member: "ResourcePolicy", Err: err}
	}
	s.policies.Resource = p
	return nil
}

// The lengths that IAM's service model allows. Reasons repeat no more than that.
const (
	maxActionName = 128
	maxResource   = 2048
	maxContextKey = 256
)

func checkQuestions(actions, resources []string) error {
	switch {
	case len(actions) == 0:
		return &InputError{Member: "ActionNames", Reason: "there has to be an action"}
	case len(actions)*max(1, len(resources)) > maxSimulated:
		return &InputError{Member: "ActionNames", Reason: fmt.Sprintf("there can be at most %d combinations of actions and resources", maxSimulated)}
	}
	for _, a := range actions {
		if len(a) > maxActionName {
			return &InputError{Member: "ActionNames", Reason: fmt.Sprintf("longer than %d characters", maxActionName)}
		}
		if checkAction(a) != nil || strings.ContainsAny(a, "*?") {
			return &InputError{Member: "ActionNames", Reason: fmt.Sprintf("%q is not the full name of an action, as in redshift:JoinGroup", a)}
		}
	}
	for _, r := range resources {
		if len(r) > maxResource {
			return &InputError{Member: "ResourceArns", Reason: fmt.Sprintf("longer than %d characters", maxResource)}
		}
		if _, err := ParseARN(r); r != "*" && err != nil {
			return &InputError{Member: "ResourceArns", Reason: fmt.Sprintf("%q is neither an ARN nor *", r)}
		}
	}
	return nil
}

// addEntries adds AWS's ContextEntries to a context. A list type makes the key
// multivalued, and so do several values of no type. The error is an *InputError: a
// type that does not exist, or a value that is not of its type.
func addEntries(ctx *Context, entries []ContextEntry) error {
	for _, e := range entries {
		fail := func(reason string) error {
			return &InputError{Member: "ContextEntries", Reason: fmt.Sprintf("%q: ", clip(e.ContextKeyName)) + reason}
		}
		kind, list := strings.CutSuffix(e.ContextKeyType, "List")
		readable, known := contextType(kind)
		switch {
		case e.ContextKeyName == "":
			return fail("the key needs a name")
		case len(e.ContextKeyName) > maxContextKey:
			return fail(fmt.Sprintf("longer than %d characters", maxContextKey))
		case !known || e.ContextKeyType == "List":
			return fail("unknown ContextKeyType; there are string, numeric, boolean, ip, binary and date, and each with List behind it")
		case kind != "" && !list && len(e.ContextKeyValues) > 1:
			return fail("several values need a list type, as in " + kind + "List")
		}
		for _, v := range e.ContextKeyValues {
			if !readable(v) {
				return fail("a value is not of the type " + kind)
			}
		}
		if list || len(e.ContextKeyValues) != 1 {
			ctx.SetList(e.ContextKeyName, e.ContextKeyValues)
		} else {
			ctx.Set(e.ContextKeyName, e.ContextKeyValues[0])
		}
	}
	return nil
}

// contextType returns the function that recognizes the values of a ContextKeyType.
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
