package iam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

func (p *Policy) parse(document []byte) *PolicyError {
	root, size, err := parseJSON(document)
	if err != nil {
		return err
	}
	p.size, p.at = size, root.start
	if root.kind != objectNode {
		return root.fail("the document has to be an object, not %s", root.kind)
	}
	for _, m := range root.children {
		switch m.name {
		case "Version", "Id", "Statement":
		default:
			return m.failName("unknown element; a document has Version, Id and Statement")
		}
	}
	if version := root.get("Version"); version != nil {
		if version.kind != stringNode || version.text != "2012-10-17" && version.text != "2008-10-17" {
			return version.fail(`the version has to be "2012-10-17" or "2008-10-17"`)
		}
		p.variables = version.text == "2012-10-17"
	}
	if id := root.get("Id"); id != nil && id.kind != stringNode {
		return id.fail("the id has to be a string, not %s", id.kind)
	}
	return p.parseStatements(root)
}

func (p *Policy) parseStatements(root *node) *PolicyError {
	list := root.get("Statement")
	if list == nil {
		return root.fail("the element Statement is missing")
	}
	elements := []*node{list}
	if list.kind == arrayNode {
		elements = list.children
	}
	if len(elements) == 0 {
		return list.fail("there has to be a statement")
	}
	sids := make(map[string]bool)
	for i, n := range elements {
		s := &statement{index: i, start: n.start, end: n.end, path: n.path()}
		if err := p.parseStatement(s, n); err != nil {
			return err
		}
		if s.sid != "" && sids[s.sid] {
			return n.get("Sid").fail("another statement of this document has this Sid")
		}
		sids[s.sid] = true
		p.statements = append(p.statements, s)
		if s.allow {
			p.allows = append(p.allows, s)
		} else {
			p.denies = append(p.denies, s)
		}
	}
	return nil
}

func (p *Policy) parseStatement(s *statement, n *node) *PolicyError {
	if n.kind != objectNode {
		return n.fail("a statement has to be an object, not %s", n.kind)
	}
	for _, m := range n.children {
		switch m.name {
		case "Sid", "Effect", "Action", "NotAction", "Condition":
		case "Resource", "NotResource":
			if p.kind == TrustPolicy {
				return m.failName("a role trust policy applies to the role it belongs to and has no resource")
			}
		case "Principal", "NotPrincipal":
			if p.kind != TrustPolicy {
				return m.failName("an identity-based policy applies to the identity it belongs to and has no principal")
			}
		default:
			return m.failName("unknown element of a statement")
		}
	}
	if sid := n.get("Sid"); sid != nil {
		if sid.kind != stringNode || strings.ContainsFunc(sid.text, func(r rune) bool { return !isAlphanumeric(r) }) {
			return sid.fail("a Sid is a string of letters A-Z and a-z and digits")
		}
		s.sid = sid.text
	}
	effect := n.get("Effect")
	switch {
	case effect == nil:
		return n.fail("the element Effect is missing")
	case effect.kind != stringNode || effect.text != "Allow" && effect.text != "Deny":
		return effect.fail(`the effect has to be "Allow" or "Deny", in this spelling`)
	}
	s.allow = effect.text == "Allow"
	if err := p.parsePrincipals(s, n); err != nil {
		return err
	}
	if err := p.parseActions(s, n); err != nil {
		return err
	}
	if err := p.parseResources(s, n); err != nil {
		return err
	}
	return p.parseConditions(s, n.get("Condition"))
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// oneOf returns an element that has a positive and a negative form. Exactly one of the two is
// required.
func oneOf(n *node, name string) (value *node, not bool, err *PolicyError) {
	positive, negative := n.get(name), n.get("Not"+name)
	switch {
	case positive != nil && negative != nil:
		return nil, false, negative.fail("%s and Not%s exclude each other", name, name)
	case positive == nil && negative == nil:
		return nil, false, n.fail("there has to be %s or Not%s", name, name)
	case positive == nil:
		return negative, true, nil
	default:
		return positive, false, nil
	}
}

// texts returns the elements of a string or of a list of strings, which must not be empty.
func texts(n *node, what string) ([]*node, *PolicyError) {
	list := []*node{n}
	if n.kind == arrayNode {
		list = n.children
	}
	if len(list) == 0 {
		return nil, n.fail("there has to be %s", what)
	}
	for _, e := range list {
		if e.kind != stringNode {
			return nil, e.fail("%s has to be a string, not %s", what, e.kind)
		}
	}
	return list, nil
}

func (p *Policy) parseActions(s *statement, n *node) *PolicyError {
	value, not, err := oneOf(n, "Action")
	if err != nil {
		return err
	}
	s.notAction = not
	list, err := texts(value, "an action")
	if err != nil {
		return err
	}
	s.actions = make([]entry, 0, len(list))
	for _, e := range list {
		if err := checkAction(e.text); err != nil {
			return e.fail("%v", err)
		}
		if p.kind == TrustPolicy && !isSTS(e.text) {
			return e.fail("a role trust policy is about actions of sts, as in sts:AssumeRole")
		}
		compiled, err := compilePattern(e.text, patternMode{wildcards: true})
		if err != nil {
			return e.fail("%v", err)
		}
		s.actions = append(s.actions, entry{pattern: compiled, place: placeOf(e, value, s)})
	}
	for i := range actions {
		covers := func(e entry) bool { return e.covers(&actions[i]) }
		if slices.ContainsFunc(s.actions, covers) != s.notAction {
			s.known |= 1 << i
		}
	}
	return nil
}

func isSTS(action string) bool {
	return len(action) > 4 && equalFold(action[:4], "sts:")
}

func checkAction(action string) error {
	if action == "*" {
		return nil
	}
	service, name, found := strings.Cut(action, ":")
	switch {
	case !found || service == "" || name == "":
		return errors.New(`an action is "*" or has the form service:name`)
	case strings.ContainsAny(service, "*?"):
		return errors.New("the service of an action cannot have wildcards")
	case strings.ContainsFunc(service, func(r rune) bool { return !isAlphanumeric(r) && r != '-' }):
		return errors.New("the service of an action is made of letters, digits and hyphens")
	case strings.ContainsFunc(name, func(r rune) bool { return !isAlphanumeric(r) && !strings.ContainsRune("*?-_", r) }):
		return errors.New("the name of an action is made of letters, digits and wildcards")
	}
	return nil
}

func (p *Policy) parseResources(s *statement, n *node) *PolicyError {
	if p.kind == TrustPolicy {
		s.anyResource = true
		return nil
	}
	value, not, err := oneOf(n, "Resource")
	if err != nil {
		return err
	}
	s.notResource = not
	list, err := texts(value, "a resource")
	if err != nil {
		return err
	}
	s.resources = make([]entry, 0, len(list))
	for _, e := range list {
		compiled, err := p.compileResource(e.text)
		if err != nil {
			return e.fail("%v", err)
		}
		compiled.place = placeOf(e, value, s)
		// The resource type has to be written out (UG reference-arns). An entry with a
		// wildcard there neither allows nor exempts anything.
		compiled.never = s.allow != not && wildResourceType(splitOutsideVariables(e.text, p.variables))
		s.resources = append(s.resources, compiled)
		s.anyResource = s.anyResource || e.text == "*" && !not
	}
	return nil
}

func (p *Policy) compileResource(text string) (entry, error) {
	if text == "*" {
		compiled, err := compilePattern(text, patternMode{wildcards: true})
		return entry{pattern: compiled}, err
	}
	parts := splitOutsideVariables(text, p.variables)
	if parts[0] != "arn" || len(parts) < 4 && !strings.HasSuffix(text, "*") || len(parts) < 3 {
		return entry{}, errors.New(`a resource is "*" or an ARN (arn:partition:service:region:account:resource)`)
	}
	if len(parts) < 6 && !strings.HasSuffix(text, "*") || len(parts) == 6 && parts[5] == "" {
		return entry{}, errors.New("an ARN has six parts (arn:partition:service:region:account:resource); it can be cut short only by a * at its end")
	}
	if parts[1] == "" || parts[2] == "" {
		return entry{}, errors.New("the ARN lacks its partition or service")
	}
	if strings.ContainsAny(parts[2], "*?") {
		return entry{}, errors.New("the service of an ARN cannot have wildcards")
	}
	// A star may cover several parts, and a text that looks like a variable can contain a colon.
	// In both cases parts[4] is not the account.
	if len(parts) == 6 && !plausibleAccount(parts[4]) && !strings.ContainsAny(parts[1]+parts[3], "*$") {
		return entry{}, fmt.Errorf("the account %q of the ARN is not made of twelve digits", parts[4])
	}
	// Variables are allowed after the fifth colon only (UG
	// reference_policies_variables); before it they are plain text.
	last := ""
	if len(parts) == 6 {
		last = parts[5]
	}
	head, err := compilePattern(text[:len(text)-len(last)], patternMode{wildcards: true, segments: true})
	if err != nil {
		return entry{}, err
	}
	tail, err := compilePattern(last, patternMode{wildcards: true, variables: p.variables, segments: true})
	if err != nil {
		return entry{}, err
	}
	head.text = text
	head.tokens = joinTokens(head.tokens, tail.tokens)
	head.prepare()
	return entry{pattern: head}, nil
}

// joinTokens appends b to a, and merges adjacent literals.
func joinTokens(a, b []token) []token {
	if len(a) > 0 && len(b) > 0 && a[len(a)-1].kind == literalToken && b[0].kind == literalToken {
		a[len(a)-1].text += b[0].text
		b = b[1:]
	}
	return append(a, b...)
}

// wildResourceType reports whether the resource type of an ARN has a wildcard, for services
// whose ARNs have a type here. A resource that consists only of * has no type.
func wildResourceType(parts []string) bool {
	if len(parts) < 6 || !typedService(parts[2]) || strings.Trim(parts[5], "*") == "" {
		return false
	}
	return strings.ContainsAny(typeOf(parts[5]), "*?")
}

// typeOf returns what the last part of an ARN begins with: the resource type.
func typeOf(resource string) string {
	if i := strings.IndexAny(resource, ":/"); i >= 0 {
		return resource[:i]
	}
	return resource
}

func (p *Policy) parsePrincipals(s *statement, n *node) *PolicyError {
	if p.kind != TrustPolicy {
		return nil
	}
	value, not, err := oneOf(n, "Principal")
	if err != nil {
		return err
	}
	s.principals = &principals{not: not, place: placeOf(value, value, s)}
	if value.kind == stringNode && value.text == "*" {
		s.principals.everyone = true
		return nil
	}
	if value.kind != objectNode || len(value.children) == 0 {
		return value.fail(`the principal has to be "*" or an object with AWS, Federated or Service`)
	}
	for _, m := range value.children {
		list, err := texts(m, "a principal")
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := s.principals.add(m.name, e.text); err != nil {
				return e.fail("%v", err)
			}
		}
	}
	return nil
}

func (p *Policy) parseConditions(s *statement, n *node) *PolicyError {
	if n == nil {
		return nil
	}
	s.hasCondition = true
	if n.kind != objectNode {
		return n.fail("the condition has to be an object, not %s", n.kind)
	}
	if len(n.children) == 0 {
		s.unfilled = append(s.unfilled, placeOf(n, n, s))
	}
	for _, operator := range n.children {
		if operator.kind != objectNode {
			return operator.fail("an operator takes an object of condition keys, not %s", operator.kind)
		}
		seen := make(map[string]bool)
		var template condition
		if err := template.parseOperator(operator.name); err != nil {
			return operator.failName("%v", err)
		}
		if len(operator.children) == 0 {
			s.unfilled = append(s.unfilled, place{at: operator.start, in: s, name: n.name + "." + clip(operator.name), index: -1})
		}
		for _, m := range operator.children {
			c := template
			c.name, c.key = m.name, lowerKey(m.name)
			c.at, c.in = m.at, s
			c.hash = hashKey(c.key)
			if i := strings.IndexByte(m.name, ':'); i <= 0 || i == len(m.name)-1 {
				return m.failName("a condition key has the form service:name")
			}
			if seen[c.key] {
				return m.failName("given twice; the names of condition keys ignore case")
			}
			seen[c.key] = true
			if err := p.parseValues(&c, m); err != nil {
				return err
			}
			s.conditions = append(s.conditions, c)
		}
	}
	return nil
}

func (p *Policy) parseValues(c *condition, n *node) *PolicyError {
	list := []*node{n}
	if n.kind == arrayNode {
		list = n.children
	}
	for _, e := range list {
		switch e.kind {
		case stringNode, numberNode, boolNode:
		default:
			return e.fail("a condition value has to be a string, a number or a boolean, not %s", e.kind)
		}
		if err := c.addValue(e.text, p.variables); err != nil {
			return e.fail("%v", err)
		}
	}
	return nil
}
