package iam

import (
	"slices"
	"strings"
)

// NamePattern is a name, or a pattern for names, that policies contain.
type NamePattern struct {
	Text  string // if Exact is false, * and ? stand for other characters
	Exact bool
}

// maxNamed bounds the names that one call of Named or ConditionNames returns.
const maxNamed = 500

// Named returns what the Allow statements for an action name after a prefix: with the prefix
// arn:aws:redshift:us-east-1:123456789012:dbuser:sales/ the database users of the cluster sales,
// in the order of the policies. Variables have their values in ctx. The names are candidates
// only: Evaluate decides whether a request for one of them is allowed. Names with a colon or a
// slash are left out, because they would belong to another resource.
func (p *Policies) Named(action, prefix string, ctx *Context) []NamePattern {
	var names []NamePattern
	p.eachAllow(action, func(_ *Policy, s *statement) {
		if s.anyResource || s.notResource {
			names = addName(names, NamePattern{Text: "*"})
			return
		}
		for i := range s.resources {
			if e := &s.resources[i]; !e.never {
				names = e.after(names, prefix, ctx)
			}
		}
	})
	return slices.DeleteFunc(names, func(n NamePattern) bool { return strings.ContainsAny(n.Text, ":/") })
}

// ConditionNames returns the texts that the Allow statements for an action compare a condition
// key with, such as the databases in conditions on redshift:DbName.
func (p *Policies) ConditionNames(action, key string, ctx *Context) []NamePattern {
	var names []NamePattern
	lower := lowerKey(key)
	p.eachAllow(action, func(_ *Policy, s *statement) {
		for i := range s.conditions {
			c := &s.conditions[i]
			if c.key != lower || c.negated {
				continue
			}
			for j := range c.texts {
				names = c.texts[j].after(names, "", ctx)
			}
		}
	})
	return names
}

// eachAllow calls f for the Allow statements about an action, in all policies but the trust
// policy.
func (p *Policies) eachAllow(action string, f func(*Policy, *statement)) {
	q := newQuery(&Request{Action: action})
	p.each(func(layer Layer, policy *Policy) {
		if layer == TrustLayer {
			return
		}
		for _, s := range policy.allows {
			if s.matchesAction(&q) {
				f(policy, s)
			}
		}
	})
}

func addName(names []NamePattern, name NamePattern) []NamePattern {
	if len(names) < maxNamed && !slices.Contains(names, name) {
		names = append(names, name)
	}
	return names
}

// element is one character of a pattern, or one wildcard.
type element struct {
	kind tokenKind // literalToken, anyToken, anyInSegment, oneToken or oneInSegment
	char byte
}

// elements returns the pattern with the values of its variables, or false if a variable has no
// value.
func (p *pattern) elements(ctx *Context) (list []element, ok bool) {
	for i := range p.tokens {
		t := &p.tokens[i]
		text := t.text
		switch t.kind {
		case variableToken:
			if text, ok = t.resolve(ctx); !ok {
				return nil, false
			}
			fallthrough
		case literalToken:
			for j := range len(text) {
				list = append(list, element{literalToken, text[j]})
			}
		case oneToken, oneInSegment:
			for range t.count {
				list = append(list, element{kind: t.kind})
			}
		default:
			list = append(list, element{kind: t.kind})
		}
	}
	return list, true
}

// after appends the patterns of what can follow prefix in a text that p matches. There are
// several if a * can end in more than one place.
func (p *pattern) after(names []NamePattern, prefix string, ctx *Context) []NamePattern {
	// Most patterns are names, or of another kind or cluster.
	if len(p.tokens) > 0 && p.tokens[0].kind == literalToken {
		first := &p.tokens[0]
		if n := min(len(first.text), len(prefix)); first.text[:n] != prefix[:n] {
			return names
		}
		if len(p.tokens) == 1 && len(first.text) >= len(prefix) {
			return addName(names, NamePattern{Text: first.text[len(prefix):], Exact: true})
		}
	}
	list, ok := p.elements(ctx)
	if !ok {
		return names
	}
	// places holds the places in list at which the rest of a matching text may begin.
	places := make([]bool, len(list)+1)
	places[0] = true
	for i := range len(prefix) {
		next := make([]bool, len(list)+1)
		for at, reached := range places {
			if reached {
				step(list, at, prefix[i], next)
			}
		}
		places = next
	}
	for at, reached := range places {
		if !reached || at > 0 && places[at-1] && wide(list[at-1]) {
			continue // the pattern that begins with the star covers this one
		}
		names = addName(names, nameOf(list[at:]))
	}
	return names
}

func wide(e element) bool { return e.kind == anyToken || e.kind == anyInSegment }

// step marks the places that are reached from a place with one character.
func step(list []element, at int, c byte, next []bool) {
	for ; at < len(list); at++ {
		switch e := list[at]; {
		case e.kind == literalToken && e.char == c, e.kind == oneToken, e.kind == oneInSegment && c != ':':
			next[at+1] = true
			return
		case e.kind == anyToken, e.kind == anyInSegment && c != ':':
			next[at] = true
			next[at+1] = true
		case e.kind != anyInSegment:
			return
		}
	}
}

func nameOf(list []element) NamePattern {
	var b strings.Builder
	name := NamePattern{Exact: true}
	for _, e := range list {
		switch {
		case e.kind == literalToken:
			b.WriteByte(e.char)
			continue
		case wide(e):
			b.WriteByte('*')
		default:
			b.WriteByte('?')
		}
		name.Exact = false
	}
	name.Text = b.String()
	return name
}

// UsesKey reports whether a condition or a variable in the policies uses a condition key.
func (p *Policies) UsesKey(key string) bool {
	lower, uses := lowerKey(key), false
	p.each(func(_ Layer, policy *Policy) {
		uses = uses || slices.ContainsFunc(policy.ContextKeys(), func(used string) bool { return lowerKey(used) == lower })
	})
	return uses
}
