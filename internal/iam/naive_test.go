package iam_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

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

// expression turns a text with wildcards and variables into a regular expression. wildcard
// returns the expression for a wildcard. ok is false if a variable has no value.
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

// matchText uses expressions that are quoted byte by byte. That works because the texts of the
// tests are ASCII wherever wildcards are used.
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
		// The head has no variables. Whether a wildcard at its end matches depends on the text
		// after it, so the two parts are translated with care.
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

// principal reports whether an element names the principal, and whether directly or through its
// role.
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
			case kind == "Federated" && p.Type == iam.WebIdentityPrincipal && strings.HasSuffix(p.ARN, ":oidc-provider/"+e),
				kind == "Federated" && (p.Type == iam.WebIdentityPrincipal || p.Type == iam.SAMLPrincipal) && e == p.ARN,
				kind == "Service" && p.Type == iam.ServicePrincipal && e == p.ARN:
				named, direct = true, true
			}
		}
	}
	return named, direct, role
}

// notPrincipal reports whether the statement is about the principal.
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
		return deny && !listed("Federated", p.ARN, p.ARN[strings.LastIndex(p.ARN, "/")+1:])
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
