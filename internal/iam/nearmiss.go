package iam

import "strings"

// NearMiss is an Allow that does not match a request, but would if one aspect were different:
// its conditions, or the name of its resource.
type NearMiss struct {
	Policy, Sid string
	Index, Line int
	// Unmet are the conditions that do not hold, if everything else matches.
	Unmet []WrittenCondition
	// Resources are the statement's resources, as written, of the same kind as the
	// request's, if everything else matches. Met are its conditions.
	Resources []string
	Met       []WrittenCondition
}

// WrittenCondition is a condition as written in a document of version 2012-10-17.
type WrittenCondition struct {
	Operator, Key string
	Values        []string
}

// NearMisses returns the statements of a layer that nearly allow the request, to explain its
// implicit deny. The search takes no more work than a decision, so some statements may be missing.
func (p *Policies) NearMisses(layer Layer, r *Request) []NearMiss {
	var misses []NearMiss
	q := newQuery(r)
	p.each(func(of Layer, policy *Policy) {
		if of != layer {
			return
		}
		for _, s := range policy.allows {
			if q.work.spent() {
				return
			}
			if miss, near := s.nearMiss(policy, &q); near && !q.work.spent() {
				misses = append(misses, miss)
			}
		}
	})
	return misses
}

// nearMiss compares a statement with a request that it does not match, and reports whether it nearly
// does.
func (s *statement) nearMiss(policy *Policy, q *query) (miss NearMiss, near bool) {
	if !s.matchesAction(q) || !s.matchesPrincipal(q) {
		return miss, false
	}
	miss = NearMiss{Policy: policy.name, Sid: s.sid, Index: s.index, Line: s.start.Line}
	for i := range s.conditions {
		c := &s.conditions[i]
		if w := (WrittenCondition{c.operator, c.name, policy.written(c)}); c.holds(q.Context, false, &q.work) {
			miss.Met = append(miss.Met, w)
		} else {
			miss.Unmet = append(miss.Unmet, w)
		}
	}
	if s.matchesResource(q) {
		return miss, len(miss.Unmet) > 0
	}
	miss.Resources = s.sameKind(q.Resource)
	return miss, len(miss.Unmet) == 0 && len(miss.Resources) > 0
}

// written returns a condition's values. In a document without variables ${ is text.
func (p *Policy) written(c *condition) []string {
	if p.variables {
		return c.written
	}
	list := make([]string, len(c.written))
	for i, text := range c.written {
		list[i] = strings.ReplaceAll(text, "$", "${$}")
	}
	return list
}

// sameKind returns the entries for resources of the same service, kind and cluster.
func (s *statement) sameKind(resource string) (list []string) {
	arn, err := ParseARN(resource)
	if err != nil || s.notResource {
		return nil
	}
	kind := func(resource string) string { return resource[:max(0, strings.IndexAny(resource, ":/"))] }
	cluster := func(resource string) string {
		in, _, _ := strings.Cut(strings.TrimPrefix(resource, kind(resource))[1:], "/")
		return in
	}
	for i := range s.resources {
		e := &s.resources[i]
		parts := splitOutsideVariables(e.text, true)
		if len(parts) == 6 && parts[2] == arn.Service && kind(parts[5]) != "" && kind(parts[5]) == kind(arn.Resource) &&
			mayBeSame(cluster(parts[5]), cluster(arn.Resource)) {
			list = append(list, e.text)
		}
	}
	return list
}
