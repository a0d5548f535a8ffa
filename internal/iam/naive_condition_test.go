package iam_test

import (
	"bytes"
	"encoding/base64"
	"math/big"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// condition evaluates one key of one operator.
func (n naive) condition(operator, key string, wanted []string, variables, deny bool) bool {
	set := ""
	if before, after, found := strings.Cut(operator, ":"); found {
		set, operator = before, after
	}
	e, present := n.context[strings.ToLower(key)]
	if operator == "Null" {
		if set != "" {
			return set == "ForAllValues"
		}
		for _, w := range wanted {
			if strings.EqualFold(w, strconv.FormatBool(!present)) {
				return true
			}
		}
		return false
	}
	base := strings.TrimSuffix(operator, "IfExists")
	negated := strings.Contains(base, "Not")
	base = strings.Replace(base, "Not", "", 1)
	if !present {
		if base+"IfExists" == strings.Replace(operator, "Not", "", 1) || set == "ForAllValues" {
			return true
		}
		return negated && set == ""
	}
	yes := 0
	for _, value := range e.values {
		matched, readable := n.matchesAny(base, value, wanted, variables, deny != negated)
		switch {
		case !readable, len(wanted) == 0 && negated:
			matched = deny
		default:
			matched = matched != negated
		}
		if matched {
			yes++
		}
	}
	every, some := yes == len(e.values), yes > 0
	null := len(e.values) == 1 && e.values[0] == ""
	switch {
	case set == "ForAllValues" && null:
		return deny || every
	case set == "ForAllValues":
		return every
	case set == "ForAnyValue" && null:
		return deny && some
	case set == "ForAnyValue":
		return some
	case deny:
		return some
	default:
		return every
	}
}

func (n naive) matchesAny(base, value string, wanted []string, variables, wide bool) (matched, readable bool) {
	readable = n.readable(base, value)
	for _, w := range wanted {
		if readable && n.matchesOne(base, value, w, variables, wide) {
			matched = true
		}
	}
	return matched, readable
}

func (n naive) readable(base, value string) bool {
	switch {
	case strings.HasPrefix(base, "Numeric"):
		_, ok := naiveNumber(value)
		return ok
	case strings.HasPrefix(base, "Date"):
		_, ok := naiveDate(value)
		return ok
	case base == "Bool":
		return strings.EqualFold(value, "true") || strings.EqualFold(value, "false")
	case base == "BinaryEquals":
		_, err := base64.StdEncoding.Strict().DecodeString(value)
		return err == nil && !strings.ContainsAny(value, "\r\n")
	case base == "IpAddress":
		return net.ParseIP(value) != nil
	case strings.HasPrefix(base, "Arn"):
		return strings.HasPrefix(value, "arn:") && strings.Count(value, ":") >= 5
	}
	return true
}

func (n naive) matchesOne(base, value, wanted string, variables, wide bool) bool {
	like := func(_ string, c byte) string { return map[byte]string{'*': ".*", '?': "."}[c] }
	exact := func(_ string, c byte) string { return regexp.QuoteMeta(string(c)) }
	switch base {
	case "StringEquals", "StringEqualsIgnoreCase":
		expr, ok := n.expression(wanted, variables, exact)
		if base == "StringEqualsIgnoreCase" {
			expr, value = naiveLower(expr), naiveLower(value)
		}
		return ok && matchText(expr, value)
	case "StringLike":
		expr, ok := n.expression(wanted, variables, like)
		return ok && matchText(expr, value)
	case "Bool":
		return strings.EqualFold(value, wanted)
	case "BinaryEquals":
		a, _ := base64.StdEncoding.DecodeString(value)
		b, _ := base64.StdEncoding.DecodeString(wanted)
		return bytes.Equal(a, b)
	case "IpAddress":
		if !strings.Contains(wanted, "/") {
			return net.ParseIP(wanted).Equal(net.ParseIP(value))
		}
		_, network, err := net.ParseCIDR(wanted)
		return err == nil && network.Contains(net.ParseIP(value))
	case "ArnEquals", "ArnLike":
		return n.matchesARN(value, wanted, variables, wide, like)
	}
	var c int
	if strings.HasPrefix(base, "Numeric") {
		a, _ := naiveNumber(value)
		b, _ := naiveNumber(wanted)
		c = a.Cmp(b)
	} else {
		a, _ := naiveDate(value)
		b, _ := naiveDate(wanted)
		c = a.Compare(b)
	}
	switch strings.TrimPrefix(strings.TrimPrefix(base, "Numeric"), "Date") {
	case "Equals":
		return c == 0
	case "LessThan":
		return c < 0
	case "LessThanEquals":
		return c <= 0
	case "GreaterThan":
		return c > 0
	case "GreaterThanEquals":
		return c >= 0
	}
	panic(base)
}

func (n naive) matchesARN(value, wanted string, variables, wide bool, like func(string, byte) string) bool {
	if wanted == "*" {
		return true
	}
	shape := wanted
	if variables {
		shape = naiveVariable.ReplaceAllString(wanted, "")
	}
	if wide && strings.Count(shape, ":") < 5 {
		expr, ok := n.expression(wanted, variables, like)
		return ok && matchText(expr, value)
	}
	if !variables || !strings.Contains(wanted, "${") {
		want, have := strings.SplitN(wanted, ":", 6), strings.SplitN(value, ":", 6)
		if len(want) < 6 {
			return false
		}
		for i := range want {
			if expr, ok := n.expression(want[i], false, like); !ok || !matchText(expr, have[i]) {
				return false
			}
		}
		return true
	}
	// With variables: no wildcard crosses a colon before the fifth one.
	colons := 0
	expr, ok := n.expression(wanted, variables, func(rest string, c byte) string {
		colons = strings.Count(naiveVariable.ReplaceAllString(wanted[:len(wanted)-len(rest)], ""), ":")
		switch {
		case colons >= 5 && c == '*':
			return ".*"
		case colons >= 5:
			return "."
		case c == '*':
			return "[^:]*"
		}
		return "[^:]"
	})
	return ok && matchText(expr, value)
}

// naiveLower lowers the letters that a policy can hold.
func naiveLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r > 0xFF {
			return r
		}
		return unicode.ToLower(r)
	}, s)
}

func naiveNumber(s string) (*big.Rat, bool) {
	if !regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][+-]?0*[0-9]{1,3})?$`).MatchString(s) {
		return nil, false
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(s), "e"); ok {
		if n, err := strconv.Atoi(exponent); err != nil || n < -400 || n > 400 { // a bound of ours
			return nil, false
		}
	}
	return new(big.Rat).SetString(s)
}

func naiveDate(s string) (time.Time, bool) {
	if regexp.MustCompile(`^[0-9]+(\.[0-9]{1,9})?$`).MatchString(s) && !regexp.MustCompile(`^[0-9]{4}(\.|$)`).MatchString(s) {
		whole, fraction, _ := strings.Cut(s, ".")
		seconds, err := strconv.ParseInt(whole, 10, 64)
		nanos, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
		return time.Unix(seconds, nanos), err == nil
	}
	// Package time also takes an hour of one digit.
	if regexp.MustCompile(`T[0-9]:`).MatchString(s) {
		return time.Time{}, false
	}
	for _, layout := range []string{"2006", "2006-01", "2006-01-02", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05Z07:00"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
