package iam

// Policies are all the policies that bear on one principal's requests.
type Policies struct {
	// Identity are the identity-based policies: the user's own, its groups'
	// and the attached ones, or the IAM role's.
	Identity []*Policy
	// Boundary is the permissions boundary. Optional.
	Boundary *Policy
	// Session are the session policies: the inline one and the managed ones,
	// of which one must allow. Nil means that none were passed; an empty
	// slice that is not nil allows nothing.
	Session []*Policy
	// Resource is the trust policy of the IAM role being assumed. Nil for
	// every other action.
	Resource *Policy
}

// Request is one question: may the principal do the action on the resource?
type Request struct {
	Principal Principal
	Action    string // as in "redshift:JoinGroup"
	Resource  string // an ARN, or "*" for actions without resources
	// Owner is the account of a resource whose ARN has none. Optional; it
	// matters for trust policies only.
	Owner   string
	Context *Context
}

// Evaluate decides a request in the order of
// UG reference_policies_evaluation-logic. It is a pure function of the policies
// and the request and safe for concurrent use.
//
// A Deny that matches, in any layer, ends it. Otherwise the identity-based
// policies must allow, and the boundary and the session policies where there are
// any. Where there is a trust policy it must allow too; within the role's account
// it may free a principal that it names from the other layers.
func (p *Policies) Evaluate(r *Request) Decision {
	if d, denied := p.explicitDeny(r); denied {
		return d
	}
	needed := grantNone
	var trust *statement
	if p.Resource != nil {
		if needed, trust = p.Resource.grants(r); needed == grantNone {
			return Decision{Layer: TrustLayer, Index: -1}
		}
		if !r.Principal.federated() && r.Principal.Account != r.owner() {
			// Across accounts both sides have to allow.
			needed = grantAccount
		}
	}
	decision := allowedBy(TrustLayer, p.Resource, trust)
	if needed <= grantAccount {
		policy, s := firstAllow(p.Identity, r)
		if s == nil {
			return Decision{Layer: IdentityLayer, Index: -1}
		}
		decision = allowedBy(IdentityLayer, policy, s)
	}
	if needed <= grantRole {
		if p.Boundary != nil && p.Boundary.first(p.Boundary.allows, r) == nil {
			return Decision{Layer: BoundaryLayer, Index: -1}
		}
		if p.Session != nil {
			if _, s := firstAllow(p.Session, r); s == nil {
				return Decision{Layer: SessionLayer, Index: -1}
			}
		}
	}
	return decision
}

// explicitDeny looks through the layers for a Deny that matches.
func (p *Policies) explicitDeny(r *Request) (Decision, bool) {
	for _, policy := range p.Identity {
		if s := policy.first(policy.denies, r); s != nil {
			return deniedBy(IdentityLayer, policy, s), true
		}
	}
	if policy := p.Boundary; policy != nil {
		if s := policy.first(policy.denies, r); s != nil {
			return deniedBy(BoundaryLayer, policy, s), true
		}
	}
	for _, policy := range p.Session {
		if s := policy.first(policy.denies, r); s != nil {
			return deniedBy(SessionLayer, policy, s), true
		}
	}
	if policy := p.Resource; policy != nil {
		if s := policy.first(policy.denies, r); s != nil {
			return deniedBy(TrustLayer, policy, s), true
		}
	}
	return Decision{}, false
}

// owner is the account that owns the resource, empty when nothing tells.
func (r *Request) owner() string {
	if arn, err := ParseARN(r.Resource); err == nil && arn.Account != "" {
		return arn.Account
	}
	if r.Owner == "" {
		return "unknown" // equal to no account
	}
	return r.Owner
}

// grants finds the statement of a trust policy that carries furthest for the
// principal of a request.
func (p *Policy) grants(r *Request) (best grant, by *statement) {
	for _, s := range p.allows {
		if s.principals == nil {
			continue
		}
		if g := s.principals.match(&r.Principal, false); g > best && s.matches(r) {
			best, by = g, s
		}
	}
	return best, by
}

func firstAllow(policies []*Policy, r *Request) (*Policy, *statement) {
	for _, p := range policies {
		if s := p.first(p.allows, r); s != nil {
			return p, s
		}
	}
	return nil, nil
}

// first is the first of the statements that applies to a request.
func (p *Policy) first(statements []*statement, r *Request) *statement {
	for _, s := range statements {
		if s.matches(r) {
			return s
		}
	}
	return nil
}

// matches reports whether a statement applies: principal, action, resource and
// every condition.
func (s *statement) matches(r *Request) bool {
	return s.matchesAction(r) && s.matchesResource(r) && s.matchesPrincipal(r) && s.failedCondition(r) == nil
}

func (s *statement) matchesPrincipal(r *Request) bool {
	return s.principals == nil || s.principals.match(&r.Principal, !s.allow) != grantNone
}

func (s *statement) matchesAction(r *Request) bool {
	for i := range s.actions {
		if s.actions[i].matchAction(r.Action) {
			return !s.notAction
		}
	}
	return s.notAction
}

func (e *entry) matchAction(action string) bool {
	if e.plain {
		return len(action) == len(e.text) && equalFold(action, e.text)
	}
	return glob(e.tokens, action, nil, true)
}

func (s *statement) matchesResource(r *Request) bool {
	if s.anyResource {
		return true
	}
	for i := range s.resources {
		if e := &s.resources[i]; !e.never && e.match(r.Resource, r.Context, false) {
			return !s.notResource
		}
	}
	return s.notResource
}

// failedCondition is the first condition that does not hold, nil when all do.
func (s *statement) failedCondition(r *Request) *condition {
	for i := range s.conditions {
		if c := &s.conditions[i]; !c.holds(r.Context, !s.allow) {
			return c
		}
	}
	return nil
}
