package iam

import "cmp"

// Policies are all policies that apply to the requests of one principal.
type Policies struct {
	// Identity are the identity-based policies: those of the user and the user's groups, or
	// those of the IAM role.
	Identity []*Policy
	// Boundary is the permissions boundary. Optional.
	Boundary *Policy
	// Session are the session policies, inline and managed. At least one of them must allow. Nil
	// means that none were passed; an empty slice allows nothing.
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
	// Every means that the request is about all resources that match Resource, which ends in *.
	// A Deny for one of them denies the request. AWS compares only the text. EveryKey is the
	// condition key that would name the resource. A condition of a Deny on that key always
	// holds, because it may hold for one of the resources. Optional.
	Every    bool
	EveryKey string
	// SomeKey is a condition key whose value differs between the things that the action lists. The
	// request is allowed if it may be allowed for one of them: a condition of an Allow on that key
	// holds, and one of a Deny does not. The caller of Evaluate then asks again for each of them, with
	// its value. Optional.
	SomeKey string
}

// query is a request during its evaluation.
type query struct {
	*Request
	known    int    // the action's row in the table of actions; -1: not in the table
	everyKey string // the lowerKey form of EveryKey
	someKey  string // the lowerKey form of SomeKey
	work     work
}

func newQuery(r *Request) query {
	q := query{Request: r, known: knownAction(r.Action)}
	if r.SomeKey != "" {
		q.someKey = lowerKey(r.SomeKey)
	}
	if r.Every {
		q.everyKey = lowerKey(r.EveryKey)
	}
	return q
}

// work counts the steps of matching, each a few nanoseconds: a statement, a value, 64 compared
// characters, a failed attempt to match a token.
type work int

// maxWork limits one decision. 200 statements take a thousand steps. A session policy of 2048
// characters and a header of 60,000 could take a hundred million, and both may come from the
// same caller.
const maxWork = 1 << 17

func (w *work) add(steps int) { *w += work(steps) }

func (w *work) spent() bool { return *w > maxWork }

// Evaluate decides a request in the order of UG reference_policies_evaluation-logic. It is a
// pure function of the policies and the request and safe for concurrent use.
//
// A matching Deny in any layer decides. Otherwise the identity-based policies must allow, and so
// must the boundary and the session policies, if there are any. A trust policy must allow too.
// Within the role's account a trust policy that names the principal can make the other layers
// unnecessary.
//
// The work is limited for any policies and values. A request that exceeds the limit is denied at
// LimitLayer, because it is not known then whether a Deny matches.
func (p *Policies) Evaluate(r *Request) Decision {
	q := newQuery(r)
	return p.evaluate(&q)
}

func (p *Policies) evaluate(q *query) Decision {
	d := p.decide(q)
	if q.work.spent() {
		return Decision{Layer: LimitLayer, Index: -1}
	}
	return d
}

func (p *Policies) decide(q *query) Decision {
	if d, denied := p.explicitDeny(q); denied {
		return d
	}
	needed := grantNone
	var trust *statement
	if p.Resource != nil {
		if needed, trust = p.Resource.grants(q); needed == grantNone {
			return Decision{Layer: TrustLayer, Index: -1}
		}
		if !q.Principal.federated() && q.Principal.Account != q.owner() {
			// Across accounts both sides have to allow.
			needed = grantAccount
		}
	}
	decision := allowedBy(TrustLayer, p.Resource, trust)
	if needed <= grantAccount {
		policy, s := firstAllow(p.Identity, q)
		if s == nil {
			return Decision{Layer: IdentityLayer, Index: -1}
		}
		decision = allowedBy(IdentityLayer, policy, s)
	}
	if needed <= grantRole {
		if p.Boundary != nil && p.Boundary.first(p.Boundary.allows, q) == nil {
			return Decision{Layer: BoundaryLayer, Index: -1}
		}
		if p.Session != nil {
			if _, s := firstAllow(p.Session, q); s == nil {
				return Decision{Layer: SessionLayer, Index: -1}
			}
		}
	}
	return decision
}

// explicitDeny finds a matching Deny in any layer.
func (p *Policies) explicitDeny(q *query) (Decision, bool) {
	for _, policy := range p.Identity {
		if s := policy.firstDeny(q); s != nil {
			return deniedBy(IdentityLayer, policy, s), true
		}
	}
	if policy := p.Boundary; policy != nil {
		if s := policy.firstDeny(q); s != nil {
			return deniedBy(BoundaryLayer, policy, s), true
		}
	}
	for _, policy := range p.Session {
		if s := policy.firstDeny(q); s != nil {
			return deniedBy(SessionLayer, policy, s), true
		}
	}
	if policy := p.Resource; policy != nil {
		if s := policy.firstDeny(q); s != nil {
			return deniedBy(TrustLayer, policy, s), true
		}
	}
	return Decision{}, false
}

// firstDeny returns the first Deny that applies to a request.
func (p *Policy) firstDeny(q *query) *statement {
	if s := p.first(p.denies, q); s != nil || !q.Every {
		return s
	}
	for _, s := range p.denies {
		q.work.add(1)
		if s.mayDeny(q) {
			return s
		}
		if q.work.spent() {
			return nil
		}
	}
	return nil
}

// owner returns the account that owns the resource. If it is not known, the result differs from
// every account, also from an empty one.
func (r *Request) owner() string {
	if arn, err := ParseARN(r.Resource); err == nil && arn.Account != "" {
		return arn.Account
	}
	return cmp.Or(r.Owner, "unknown")
}

// grants returns the strongest grant that a trust policy gives the principal of a request, with
// its statement.
func (p *Policy) grants(q *query) (best grant, by *statement) {
	for _, s := range p.allows {
		if s.principals == nil || q.work.spent() {
			continue
		}
		if g := s.principals.match(&q.Principal, false); g > best && s.matches(q) {
			best, by = g, s
		}
	}
	return best, by
}

func firstAllow(policies []*Policy, q *query) (*Policy, *statement) {
	for _, p := range policies {
		if s := p.first(p.allows, q); s != nil {
			return p, s
		}
	}
	return nil, nil
}

// first returns the first of the statements that applies to a request.
func (p *Policy) first(statements []*statement, q *query) *statement {
	for _, s := range statements {
		if s.matches(q) {
			return s
		}
		if q.work.spent() {
			return nil
		}
	}
	return nil
}

// matches reports whether a statement applies: principal, action, resource and
// every condition.
func (s *statement) matches(q *query) bool {
	q.work.add(1)
	return s.matchesAction(q) && s.matchesResource(q) && s.matchesPrincipal(q) && s.failedCondition(q) == nil
}

func (s *statement) matchesPrincipal(q *query) bool {
	return s.principals == nil || s.principals.match(&q.Principal, !s.allow) != grantNone
}

func (s *statement) matchesAction(q *query) bool {
	if q.known >= 0 {
		return s.known&(1<<q.known) != 0
	}
	return s.matchActionText(q.Action, &q.work)
}

// matchActionText compares an action with the patterns of the statement.
func (s *statement) matchActionText(action string, w *work) bool {
	w.add(len(s.actions))
	for i := range s.actions {
		if s.actions[i].matchAction(action, w) {
			return !s.notAction
		}
	}
	return s.notAction
}

// covers reports whether the entry matches an action of the table. The names in the table are
// too short to exceed the limit of work.
func (e *entry) covers(a *action) bool {
	var w work
	return e.matchAction(a.name, &w)
}

func (e *entry) matchAction(action string, w *work) bool {
	if e.plain {
		return len(action) == len(e.text) && equalFold(action, e.text)
	}
	if first := &e.tokens[0]; first.kind == literalToken && !hasPrefix(action, first.text, true) {
		return false
	}
	return glob(e.tokens, action, nil, true, w)
}

func (s *statement) matchesResource(q *query) bool {
	if s.anyResource {
		return true
	}
	q.work.add(len(s.resources))
	for i := range s.resources {
		if e := &s.resources[i]; !e.never && e.match(q.Resource, q.Context, false, &q.work) {
			return !s.notResource
		}
	}
	return s.notResource
}

// failedCondition returns the first condition that does not hold, or nil if all hold.
func (s *statement) failedCondition(q *query) *condition {
	for i := range s.conditions {
		c := &s.conditions[i]
		if q.someKey != "" && c.key == q.someKey {
			if !s.allow {
				return c
			}
			continue
		}
		if !c.holds(q.Context, !s.allow, &q.work) {
			return c
		}
	}
	return nil
}
