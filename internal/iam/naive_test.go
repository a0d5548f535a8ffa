package iam_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/daypass/daypass/internal/iam"
)

// naiveEvaluate is a second evaluator, written from the documents for the tests
// alone. It shares nothing with the package: documents are read with
// encoding/json on every call, wildcards become regular expressions, numbers are
// rationals, dates are parsed by package time, and the layers are computed as
// sets of answers first and combined afterwards.
func naiveEvaluate(docs documents, r *iam.Request, context []contextEntry) string {
	n := naive{request: r, context: make(map[string]contextEntry)}
	for _, e := range context {
		n.context[strings.ToLower(e.key)] = e
		if len(e.values) == 0 {
			delete(n.context, strings.ToLower(e.key))
		}
	}
	identity := n.all(docs.identity)
	boundary := n.all([]string{docs.boundary})
	session := n.all(docs.session)
	trust := n.all([]string{docs.trust})
	if identity.denied || boundary.denied || session.denied || trust.denied {
		return "explicitDeny"
	}
	limits := (docs.boundary == "" || boundary.allowed) && (!docs.hasSession || session.allowed)
	var allowed bool
	switch {
	case docs.trust == "":
		allowed = identity.allowed && limits
	case !trust.allowed:
	case r.Principal.Type == iam.WebIdentityPrincipal || r.Principal.Type == iam.SAMLPrincipal || r.Principal.Type == iam.ServicePrincipal:
		allowed = true
	case !n.sameAccount():
		allowed = identity.allowed && limits
	default:
		allowed = trust.direct || limits && (trust.role || identity.allowed)
	}
	if allowed {
		return "allowed"
	}
	return "implicitDeny"
}

type naive struct {
	request *iam.Request
	context map[string]contextEntry
}

// answers of a set of policies. Direct and role say how an Allow names the
// principal.
type answers struct{ allowed, denied, direct, role bool }

func (n naive) sameAccount() bool {
	owner := n.request.Owner
	if parts := strings.Split(n.request.Resource, ":"); len(parts) > 5 && parts[4] != "" {
		owner = parts[4]
	}
	return owner == n.request.Principal.Account
}

func (n naive) all(documents []string) (total answers) {
	for _, document := range documents {
		if document == "" {
			continue
		}
		var policy struct {
			Version   string
			Statement json.RawMessage
		}
		if err := json.Unmarshal([]byte(document), &policy); err != nil {
			panic(err)
		}
		var statements []map[string]any
		list := policy.Statement
		if !bytes.HasPrefix(bytes.TrimSpace(list), []byte("[")) {
			list = []byte("[" + string(list) + "]")
		}
		decoder := json.NewDecoder(bytes.NewReader(list))
		decoder.UseNumber()
		if err := decoder.Decode(&statements); err != nil {
			panic(err)
		}
		for _, statement := range statements {
			a := n.statement(statement, policy.Version == "2012-10-17")
			total.allowed = total.allowed || a.allowed
			total.denied = total.denied || a.denied
			total.direct = total.direct || a.direct
			total.role = total.role || a.role
		}
	}
	return total
}

func (n naive) statement(s map[string]any, variables bool) (a answers) {
	deny := s["Effect"] == "Deny"
	a.direct = true
	if principal, ok := s["Principal"]; ok {
		var named bool
		named, a.direct, a.role = n.principal(principal, deny)
		if !named {
			return answers{}
		}
	}
	if principal, ok := s["NotPrincipal"]; ok {
		if !n.notPrincipal(principal, deny) {
			return answers{}
		}
		a.direct = false
	}
	if actions, ok := s["Action"]; ok && !n.action(actions) {
		return answers{}
	}
	if actions, ok := s["NotAction"]; ok && n.action(actions) {
		return answers{}
	}
	if resources, ok := s["Resource"]; ok && !n.resource(resources, variables, !deny) {
		return answers{}
	}
	if resources, ok := s["NotResource"]; ok && n.resource(resources, variables, deny) {
		return answers{}
	}
	if conditions, ok := s["Condition"].(map[string]any); ok {
		for operator, keys := range conditions {
			for key, values := range keys.(map[string]any) {
				if !n.condition(operator, key, strs(values), variables, deny) {
					return answers{}
				}
			}
		}
	}
	a.allowed, a.denied = !deny, deny
	if deny {
		a.direct, a.role = false, false
	}
	return a
}

// strs is a value or list of values as text.
func strs(v any) []string {
	switch v := v.(type) {
	case []any:
		texts := []string{}
		for _, e := range v {
			texts = append(texts, strs(e)...)
		}
		return texts
	case string:
		return []string{v}
	case bool:
		return []string{strconv.FormatBool(v)}
	case json.Number:
		return []string{v.String()}
	}
	panic("not a value")
}

func (n naive) action(patterns any) bool {
	for _, p := range strs(patterns) {
		expr := regexp.QuoteMeta(strings.ToLower(p))
		expr = strings.ReplaceAll(strings.ReplaceAll(expr, `\*`, ".*"), `\?`, ".")
		if regexp.MustCompile("(?s)^" + expr + "$").MatchString(strings.ToLower(n.request.Action)) {
			return true
		}
	}
	return false
}

var naiveVariable = regexp.MustCompile(`\$\{([^}',]*)(?:, *'([^']*)')?\}`)

// expression turns a text with wildcards and variables into a regular
// expression; star and mark are what the wildcards become. It fails when a
// variable has no value.
func (n naive) expression(text string, variables bool, wildcard func(rest string, c byte) string) (string, bool) {
	var expr strings.Builder
	for i := 0; i < len(text); i++ {
		if variables && strings.HasPrefix(text[i:], "${") {
			m := naiveVariable.FindStringSubmatch(text[i:])
			name := m[1]
			value, ok := name, name == "*" || name == "?" || name == "$"
			if e, present := n.context[strings.ToLower(name)]; present && !e.list {
				value, ok = e.values[0], true
			} else if !ok && strings.Contains(m[0], ",") {
				value, ok = m[2], true
			}
			if !ok {
				return "", false
			}
			expr.WriteString(regexp.QuoteMeta(value))
			i += len(m[0]) - 1
			continue
		}
		if text[i] == '*' || text[i] == '?' {
			expr.WriteString(wildcard(text[i+1:], text[i]))
			continue
		}
		expr.WriteString(regexp.QuoteMeta(text[i : i+1]))
	}
	return "(?s)^(?:" + expr.String() + ")$", true
}

// matchBytes matches byte-wise quoted expressions: texts of the tests are ASCII
// wherever wildcards are used.
func matchText(expr, text string) bool {
	re, err := regexp.Compile(expr)
	return err == nil && re.MatchString(text)
}

func (n naive) resource(patterns any, variables, strictType bool) bool {
	for _, p := range strs(patterns) {
		if p == "*" {
			return true
		}
		colons := 0
		head := len(p)
		for i, c := range p {
			if c == ':' {
				if colons++; colons == 5 {
					head = i + 1
				}
			}
		}
		if parts := strings.SplitN(p, ":", 6); strictType && len(parts) == 6 && regexp.MustCompile(`^(redshift|iam|sts|daypass)$`).MatchString(parts[2]) {
			kind := regexp.MustCompile(`^[^:/]*`).FindString(parts[5])
			if strings.ContainsAny(kind, "*?") && strings.Trim(parts[5], "*") != "" {
				continue
			}
		}
		segment := func(rest string, c byte) string {
			if c == '?' {
				return "[^:]"
			}
			rest = strings.TrimLeft(rest, "*")
			if rest == "" || rest[0] == ':' {
				return ".*"
			}
			return "[^:]*"
		}
		// The head knows no variables; a wildcard at its end is judged by
		// what comes after, so the two parts are translated with care.
		first, _ := n.expression(p[:head], false, func(rest string, c byte) string { return segment(rest+p[head:], c) })
		second, ok := n.expression(p[head:], variables, segment)
		if !ok {
			continue
		}
		expr := strings.TrimSuffix(first, ")$") + strings.TrimPrefix(second, "(?s)^(?:")
		if matchText(expr, n.request.Resource) {
			return true
		}
	}
	return false
}

// principal says whether an element names the principal, and whether directly
// or through its role.
func (n naive) principal(element any, deny bool) (named, direct, role bool) {
	p := n.request.Principal
	identity := p.Type == iam.UserPrincipal || p.Type == iam.RoleSessionPrincipal || p.Type == iam.AccountPrincipal || p.Type == iam.FederatedUserPrincipal
	kinds, isMap := element.(map[string]any)
	if !isMap {
		kinds = map[string]any{"AWS": "*"}
	}
	for kind, entries := range kinds {
		for _, e := range strs(entries) {
			switch {
			case kind == "AWS" && e == "*":
				if identity || deny {
					named, direct = true, true
				}
			case kind == "AWS" && identity && (e == p.Account || e == "arn:aws:iam::"+p.Account+":root"):
				named = true
			case kind == "AWS" && identity && e == p.ARN && e != p.RoleARN:
				named, direct = true, true
			case kind == "AWS" && p.RoleARN != "" && e == p.RoleARN:
				named, role = true, true
			case kind == "Federated" && (p.Type == iam.WebIdentityPrincipal || p.Type == iam.SAMLPrincipal) && e == p.ARN,
				kind == "Service" && p.Type == iam.ServicePrincipal && e == p.ARN:
				named, direct = true, true
			}
		}
	}
	return named, direct, role
}

// notPrincipal says whether the statement is about the principal.
func (n naive) notPrincipal(element any, deny bool) bool {
	p := n.request.Principal
	kinds, isMap := element.(map[string]any)
	if !isMap {
		kinds = map[string]any{"AWS": "*"}
	}
	listed := func(kind string, wanted ...string) bool {
		for _, e := range strs(append([]any{}, kinds[kind])) {
			for _, w := range wanted {
				if e == w || e == "*" {
					return true
				}
			}
		}
		return false
	}
	for _, kind := range []string{"AWS", "Federated", "Service"} {
		if kinds[kind] == nil {
			kinds[kind] = []any{}
		}
	}
	switch p.Type {
	case iam.WebIdentityPrincipal, iam.SAMLPrincipal:
		return deny && !listed("Federated", p.ARN)
	case iam.ServicePrincipal:
		return deny && !listed("Service", p.ARN)
	}
	chain := [][]string{{p.Account, "arn:aws:iam::" + p.Account + ":root"}}
	if p.RoleARN != "" {
		chain = append(chain, []string{p.RoleARN})
	} else if p.Type != iam.AccountPrincipal {
		chain = append(chain, []string{p.ARN})
	}
	count := 0
	for _, link := range chain {
		if listed("AWS", link...) {
			count++
		}
	}
	if deny {
		return count < len(chain)
	}
	return count == 0 && !listed("AWS", p.ARN)
}

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
		matched, readable := n.matchesAny(base, value, wanted, variables)
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

func (n naive) matchesAny(base, value string, wanted []string, variables bool) (matched, readable bool) {
	readable = n.readable(base, value)
	for _, w := range wanted {
		if readable && n.matchesOne(base, value, w, variables) {
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

func (n naive) matchesOne(base, value, wanted string, variables bool) bool {
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
		return n.matchesARN(value, wanted, variables, like)
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

func (n naive) matchesARN(value, wanted string, variables bool, like func(string, byte) string) bool {
	if wanted == "*" {
		return true
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
	if !regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$`).MatchString(s) {
		return nil, false
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
	for _, layout := range []string{"2006", "2006-01", "2006-01-02", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05Z07:00"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
