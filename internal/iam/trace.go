package iam

// StatementMatch reports whether a statement applies to a request, and if not, why.
type StatementMatch struct {
	Layer      Layer
	Policy     string
	Index      int
	Sid        string
	Allow      bool     // the effect: Allow or Deny
	Start, End Position // of the first character of the statement, and just past the last
	Matched    bool
	// Mismatch is the first part that does not match if Matched is false: "Action",
	// "Resource", "Principal", or a condition such as
	// "Condition.StringEquals.aws:username".
	Mismatch string
}

// Trace evaluates every statement separately, in the order identity-based policies, permissions
// boundary, session policies, trust policy. Use it to explain a decision, and Evaluate to make
// one.
func (p *Policies) Trace(r *Request) []StatementMatch {
	var matches []StatementMatch
	p.each(func(layer Layer, policy *Policy) {
		for _, s := range policy.statements {
			m := StatementMatch{
				Layer: layer, Policy: policy.name, Index: s.index, Sid: s.sid,
				Allow: s.allow, Start: s.start, End: s.end,
			}
			q := newQuery(r)
			m.Mismatch = s.mismatch(&q)
			m.Matched = m.Mismatch == ""
			matches = append(matches, m)
		}
	})
	return matches
}

func (s *statement) mismatch(q *query) string {
	switch {
	case !s.matchesAction(q):
		return "Action"
	case !s.matchesResource(q):
		return "Resource"
	case !s.matchesPrincipal(q):
		return "Principal"
	}
	if c := s.failedCondition(q); c != nil {
		return "Condition." + c.operator + "." + c.name
	}
	return ""
}

// MissingContextKeys returns the condition keys that the policies use and the
// context does not have, each once, as first written.
func (p *Policies) MissingContextKeys(ctx *Context) []string {
	var missing []string
	seen := make(map[string]bool)
	p.each(func(_ Layer, policy *Policy) {
		for _, key := range policy.ContextKeys() {
			if lower := lowerKey(key); !seen[lower] && len(ctx.Lookup(key)) == 0 {
				seen[lower] = true
				missing = append(missing, key)
			}
		}
	})
	return missing
}

// each calls f for every policy with its layer.
func (p *Policies) each(f func(Layer, *Policy)) {
	for _, policy := range p.Identity {
		f(IdentityLayer, policy)
	}
	if p.Boundary != nil {
		f(BoundaryLayer, p.Boundary)
	}
	for _, policy := range p.Session {
		f(SessionLayer, policy)
	}
	if p.Resource != nil {
		f(TrustLayer, p.Resource)
	}
}
