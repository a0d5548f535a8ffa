package iam

// Two patterns overlap if some text matches both. Requests about many resources need this test,
// and so do warnings about entries that match nothing.

// charSet has the characters allowed at one place of a pattern: one byte, or a class.
type charSet struct {
	byte  byte // used if class is noClass
	class class
	// many: any number of characters, including none.
	many bool
}

type class uint8

const (
	noClass     class = iota
	anyChar           // for a * that crosses colons, and for a variable
	segmentChar       // no colon
	nameChar          // no colon and no slash, as in the names of clusters and databases
	digit             // of an account
)

func (c class) has(b byte) bool {
	switch c {
	case segmentChar:
		return b != ':'
	case nameChar:
		return b != ':' && b != '/'
	case digit:
		return b >= '0' && b <= '9'
	}
	return true
}

// common reports whether the two sets share a character.
func (s charSet) common(t charSet) bool {
	switch {
	case s.class == noClass && t.class == noClass:
		return s.byte == t.byte
	case s.class == noClass:
		return t.class.has(s.byte)
	case t.class == noClass:
		return s.class.has(t.byte)
	}
	return true // digits are in every class
}

// places returns the character sets of tokens. A variable has its value in ctx, or can
// be anything if ctx is nil; a variable without a value makes the pattern match
// nothing. loose lets every wildcard match colons.
func places(tokens []token, ctx *Context, loose bool) (list []charSet, ok bool) {
	text := func(s string) {
		for i := range len(s) {
			list = append(list, charSet{byte: s[i]})
		}
	}
	segment := segmentChar
	if loose {
		segment = anyChar
	}
	for i := range tokens {
		switch t := &tokens[i]; t.kind {
		case literalToken:
			text(t.text)
		case variableToken:
			if ctx == nil {
				list = append(list, charSet{class: anyChar, many: true})
				continue
			}
			value, has := t.resolve(ctx)
			if !has {
				return nil, false
			}
			text(value)
		case anyToken:
			list = append(list, charSet{class: anyChar, many: true})
		case anyInSegment:
			list = append(list, charSet{class: segment, many: true})
		default:
			class := anyChar
			if t.kind == oneInSegment {
				class = segment
			}
			for range t.count {
				list = append(list, charSet{class: class})
			}
		}
	}
	return list, true
}

// overlap reports whether some text matches both patterns. The work is the product of their
// lengths. Once w is used up, the result has no meaning.
func overlap(a, b []charSet, w *work) bool {
	width := len(b) + 1
	if w.add((len(a) + 1) * width >> 6); w.spent() {
		return false
	}
	// Pairs of places in a and b that the same text reaches.
	seen := make([]bool, (len(a)+1)*width)
	todo := []int{0}
	reach := func(i, j int) {
		if at := i*width + j; !seen[at] {
			seen[at] = true
			todo = append(todo, at)
		}
	}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		i, j := at/width, at%width
		if i == len(a) && j == len(b) {
			return true
		}
		if i < len(a) && a[i].many {
			reach(i+1, j)
		}
		if j < len(b) && b[j].many {
			reach(i, j+1)
		}
		if i < len(a) && j < len(b) && a[i].common(b[j]) {
			next := func(s charSet, at int) int {
				if s.many {
					return at
				}
				return at + 1
			}
			reach(next(a[i], i), next(b[j], j))
		}
	}
	return false
}

// mayDeny reports whether a Deny matches one of the resources of a request with Every.
func (s *statement) mayDeny(q *query) bool {
	return s.matchesAction(q) && s.matchesPrincipal(q) && s.matchesOneOf(q) && s.mayHold(q)
}

// matchesOneOf reports whether the statement matches one of the resources that begin like the
// request's.
func (s *statement) matchesOneOf(q *query) bool {
	if s.anyResource {
		return true
	}
	prefix := q.Resource[:len(q.Resource)-1]
	if s.notResource {
		// Unless a single entry of NotResource has all the resources, the statement matches
		// some.
		return !s.hasAll(q)
	}
	for i := range s.resources {
		e := &s.resources[i]
		list, ok := places(e.tokens, q.context(), false)
		if !ok || e.never {
			continue
		}
		// Names have no colon, except those of identities. Otherwise a * in a Deny could match
		// another resource's ARN inside a name.
		for _, name := range []struct {
			prefix string
			class  class
		}{{"", segmentChar}, {"IAM:", nameChar}, {"IAMR:", nameChar}} {
			text := prefix + name.prefix
			wanted := make([]charSet, 0, len(text)+1)
			for i := range len(text) {
				wanted = append(wanted, charSet{byte: text[i]})
			}
			if overlap(list, append(wanted, charSet{class: name.class, many: true}), &q.work) {
				return true
			}
		}
	}
	return false
}

// hasAll reports whether a single entry matches everything that the request's resource, which
// ends in *, can match. Such an entry ends in a * itself.
func (s *statement) hasAll(q *query) bool {
	for i := range s.resources {
		e := &s.resources[i]
		last := len(e.tokens) - 1
		if !e.never && last >= 0 && e.tokens[last].kind == anyToken && e.match(q.Resource, q.Context, false, &q.work) {
			return true
		}
	}
	return false
}

// mayHold reports whether the conditions hold, or may hold for one of the resources.
func (s *statement) mayHold(q *query) bool {
	for i := range s.conditions {
		c := &s.conditions[i]
		if c.key != q.everyKey && !c.holds(q.Context, true, &q.work) {
			return false
		}
	}
	return true
}

// context is never nil.
func (q *query) context() *Context {
	if q.Context == nil {
		return &Context{}
	}
	return q.Context
}
