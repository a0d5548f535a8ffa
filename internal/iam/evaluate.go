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
	Context   *Context
}

// Evaluate decides a request. It is a pure function of the policies and the
// request and safe for concurrent use.
func (p *Policies) Evaluate(r *Request) Decision { return Decision{Index: -1} }
