package iam

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// condition is one operator applied to one key, compiled.
type condition struct {
	operator string // as written, set operator and suffix included
	name     string // the key as written
	key      string // the key in the form of lowerKey
	hash     uint32 // the hashKey of key
	at       Position
	in       *statement

	test     test
	order    order // for numbers and dates
	negated  bool
	ifExists bool
	set      setOperator

	written []string // the values
	// The values, compiled for the test. Only one of the lists is filled.
	texts    []pattern
	arns     []arnPattern
	numbers  []decimal
	instants []instant
	prefixes []netip.Prefix
	binaries []string
	// For Bool and Null: whether the list contains true, and whether it contains false.
	wantTrue, wantFalse bool
}

func (c *condition) path() string {
	return c.in.path + ".Condition." + clip(c.operator) + "." + clip(c.name)
}

type test uint8

const (
	testString test = iota
	testStringFold
	testLike
	testNumber
	testDate
	testBool
	testBinary
	testAddress
	testARN
	testNull
)

type order uint8

const (
	orderEqual order = iota
	orderLess
	orderLessEqual
	orderGreater
	orderGreaterEqual
)

func (o order) holds(comparison int) bool {
	switch o {
	case orderLess:
		return comparison < 0
	case orderLessEqual:
		return comparison <= 0
	case orderGreater:
		return comparison > 0
	case orderGreaterEqual:
		return comparison >= 0
	default:
		return comparison == 0
	}
}

type setOperator uint8

const (
	noSet setOperator = iota
	forAllValues
	forAnyValue
)

// baseOperator parses a condition operator (UG
// reference_policies_elements_condition_operators) without set operator and suffix.
func baseOperator(name string) (t test, o order, negated, ok bool) {
	switch name {
	case "StringEquals":
		return testString, 0, false, true
	case "StringNotEquals":
		return testString, 0, true, true
	case "StringEqualsIgnoreCase":
		return testStringFold, 0, false, true
	case "StringNotEqualsIgnoreCase":
		return testStringFold, 0, true, true
	case "StringLike":
		return testLike, 0, false, true
	case "StringNotLike":
		return testLike, 0, true, true
	case "Bool":
		return testBool, 0, false, true
	case "BinaryEquals":
		return testBinary, 0, false, true
	case "IpAddress":
		return testAddress, 0, false, true
	case "NotIpAddress":
		return testAddress, 0, true, true
	case "ArnEquals", "ArnLike":
		return testARN, 0, false, true
	case "ArnNotEquals", "ArnNotLike":
		return testARN, 0, true, true
	case "Null":
		return testNull, 0, false, true
	}
	suffix, found := strings.CutPrefix(name, "Numeric")
	t = testNumber
	if !found {
		suffix, found = strings.CutPrefix(name, "Date")
		t = testDate
	}
	if !found {
		return 0, 0, false, false
	}
	switch suffix {
	case "Equals":
		return t, orderEqual, false, true
	case "NotEquals":
		return t, orderEqual, true, true
	case "LessThan":
		return t, orderLess, false, true
	case "LessThanEquals":
		return t, orderLessEqual, false, true
	case "GreaterThan":
		return t, orderGreater, false, true
	case "GreaterThanEquals":
		return t, orderGreaterEqual, false, true
	}
	return 0, 0, false, false
}

// parseOperator parses an operator.
func (c *condition) parseOperator(name string) error {
	c.operator = name
	base := name
	if prefix, rest, found := strings.Cut(name, ":"); found {
		switch prefix {
		case "ForAllValues":
			c.set = forAllValues
		case "ForAnyValue":
			c.set = forAnyValue
		default:
			return errors.New("unknown set operator; there are ForAllValues and ForAnyValue")
		}
		base = rest
	}
	base, c.ifExists = strings.CutSuffix(base, "IfExists")
	var ok bool
	c.test, c.order, c.negated, ok = baseOperator(base)
	if !ok {
		return errors.New("unknown condition operator")
	}
	if c.test == testNull && c.ifExists {
		return errors.New("the operator Null cannot have the suffix IfExists")
	}
	return nil
}

// addValue compiles one value of the policy. variables reports whether the document has policy
// variables, which only version 2012-10-17 does.
func (c *condition) addValue(text string, variables bool) error {
	c.written = append(c.written, text)
	switch c.test {
	case testString, testStringFold, testLike:
		p, err := compilePattern(text, patternMode{wildcards: c.test == testLike, variables: variables})
		c.texts = append(c.texts, p)
		return err
	case testARN:
		p, err := compileARNPattern(text, variables)
		c.arns = append(c.arns, p)
		return err
	}
	ok := false
	wanted := ""
	switch c.test {
	case testNumber:
		var d decimal
		d, ok = parseDecimal(text)
		c.numbers = append(c.numbers, d)
		wanted = "a number"
	case testDate:
		var i instant
		i, ok = parseInstant(text)
		c.instants = append(c.instants, i)
		wanted = "a date (2026-01-02, 2026-01-02T15:04:05Z) or seconds since 1970"
	case testAddress:
		var p netip.Prefix
		p, ok = parsePrefix(text)
		c.prefixes = append(c.prefixes, p)
		wanted = "an IP address or a range in CIDR form"
	case testBinary:
		ok = canonicalBase64(text)
		c.binaries = append(c.binaries, text)
		wanted = "base64 with padding"
	case testBool, testNull:
		var b bool
		b, ok = parseBool(text)
		c.wantTrue = c.wantTrue || b
		c.wantFalse = c.wantFalse || !b
		wanted = "true or false"
	}
	if ok {
		return nil
	}
	if variables && strings.Contains(text, "${") {
		return errors.New("policy variables stand for values of the string and ARN operators only")
	}
	return errors.New("the value is not " + wanted)
}

// holds evaluates the condition. Where the documents leave the result open, the result makes an
// Allow not match and a Deny match. This applies to a value that cannot be parsed, a plain operator
// on a list, a negated operator with an empty list, and an ARN of fewer than six parts in the policy.
func (c *condition) holds(ctx *Context, deny bool, w *work) bool {
	w.add(1 + ctx.lookupWork())
	v := ctx.lookup(c.key, c.hash)
	if c.test == testNull {
		switch c.set {
		case forAllValues:
			return true
		case forAnyValue:
			return false
		}
		if v == nil {
			return c.wantTrue
		}
		return c.wantFalse
	}
	if v == nil {
		switch {
		case c.ifExists || c.set == forAllValues:
			return true
		case c.set == forAnyValue:
			return false
		default:
			return c.negated
		}
	}
	// A plain operator on a list requires all values in an Allow, and any value in a
	// Deny. For one value there is no difference.
	all := c.set == forAllValues || c.set == noSet && !deny
	holds, values := all, v.values()
	for _, value := range values {
		if c.value(value, ctx, deny, w) != all {
			holds = !all
			break
		}
	}
	if c.set != noSet && len(values) == 1 && values[0] == "" {
		// The guide calls a single empty string a null data set: true for ForAllValues, false
		// for ForAnyValue, whatever the policy's values are. This rule is applied only if it
		// makes the result stricter.
		documented := c.set == forAllValues
		if deny {
			return holds || documented
		}
		return holds && documented
	}
	return holds
}

// value evaluates the condition for one value of the request.
func (c *condition) value(value string, ctx *Context, deny bool, w *work) bool {
	if c.empty() && c.negated {
		return deny
	}
	w.add(1 + len(c.written)>>2 + len(value)>>6)
	matched, readable := c.matches(value, ctx, deny != c.negated, w)
	if !readable {
		return deny
	}
	return matched != c.negated
}

// empty reports whether the policy's list has no values.
func (c *condition) empty() bool {
	return len(c.written) == 0
}

// matches reports whether a value of the request matches one of the policy's. If wide is set, a
// match makes the decision stricter.
func (c *condition) matches(value string, ctx *Context, wide bool, w *work) (matched, readable bool) {
	switch c.test {
	case testString, testStringFold, testLike:
		for i := range c.texts {
			if c.texts[i].match(value, ctx, c.test == testStringFold, w) {
				return true, true
			}
		}
	case testARN:
		var parts [arnParts]string
		if !splitARN(value, &parts) {
			return false, false
		}
		for i := range c.arns {
			if c.arns[i].match(value, &parts, ctx, wide, w) {
				return true, true
			}
		}
	case testNumber:
		d, ok := parseDecimal(value)
		for i := range c.numbers {
			if ok && c.order.holds(d.compare(c.numbers[i])) {
				return true, true
			}
		}
		return false, ok
	case testDate:
		at, ok := parseInstant(value)
		for i := range c.instants {
			if ok && c.order.holds(at.compare(c.instants[i])) {
				return true, true
			}
		}
		return false, ok
	case testAddress:
		addr, ok := parseAddr(value)
		for i := range c.prefixes {
			if ok && c.prefixes[i].Contains(addr) {
				return true, true
			}
		}
		return false, ok
	case testBinary:
		if slices.Contains(c.binaries, value) {
			return true, true
		}
		return false, canonicalBase64(value)
	case testBool:
		b, ok := parseBool(value)
		return ok && (b && c.wantTrue || !b && c.wantFalse), ok
	}
	return false, true
}

// arnPattern is a value of the ARN operators. It has one pattern for each of the six parts, so
// that a wildcard cannot cross a colon, except in the last part, which may contain colons.
type arnPattern struct {
	text  string
	parts []pattern // six patterns, or one for a text with fewer parts
	any   bool      // "*" alone
	// wide is set for a text with fewer parts. Its wildcards cross colons, as those of StringLike.
	wide pattern
}

func compileARNPattern(text string, variables bool) (arnPattern, error) {
	a := arnPattern{text: text, any: text == "*"}
	parts := splitOutsideVariables(text, variables)
	if len(parts) < 6 {
		p, err := compilePattern(text, patternMode{wildcards: true, variables: variables, segments: true})
		// Here a * at the end must not cross colons.
		for i := range p.tokens {
			if p.tokens[i].kind == anyToken {
				p.tokens[i].kind = anyInSegment
			}
		}
		a.parts = []pattern{p}
		if err == nil {
			a.wide, err = compilePattern(text, patternMode{wildcards: true, variables: variables})
		}
		return a, err
	}
	for _, part := range parts {
		p, err := compilePattern(part, patternMode{wildcards: true, variables: variables})
		if err != nil {
			return a, err
		}
		a.parts = append(a.parts, p)
	}
	return a, nil
}

// match compares an ARN with the pattern. AWS's documents do not define a pattern with fewer than
// six parts, so wide selects which of its two readings counts.
func (a *arnPattern) match(value string, parts *[arnParts]string, ctx *Context, wide bool, w *work) bool {
	if a.any {
		return true
	}
	if len(a.parts) == 1 && wide {
		return a.wide.match(value, ctx, false, w)
	}
	if len(a.parts) == 1 {
		return a.parts[0].match(value, ctx, false, w)
	}
	for i := range a.parts {
		if !a.parts[i].match(parts[i], ctx, false, w) {
			return false
		}
	}
	return true
}

func splitARN(s string, parts *[arnParts]string) bool {
	for i := range 5 {
		part, rest, found := strings.Cut(s, ":")
		if !found {
			return false
		}
		parts[i], s = part, rest
	}
	parts[5] = s
	return parts[0] == "arn"
}

// splitOutsideVariables splits an ARN into its six parts at colons, except for those inside ${…}.
// A text that is no ARN has fewer parts.
func splitOutsideVariables(text string, variables bool) []string {
	var parts []string
	start := 0
	for i := 0; i < len(text) && len(parts) < arnParts-1; i++ {
		if variables && strings.HasPrefix(text[i:], "${") {
			if _, width, err := parseVariable(text[i:]); err == nil {
				i += width - 1
				continue
			}
		}
		if text[i] == ':' {
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}
