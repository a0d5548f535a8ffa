package iam

import (
	"fmt"
	"slices"
	"strings"
)

// Warnings returns parts of the document that are probably mistakes, in the order of the
// document.
func (p *Policy) Warnings() []Warning {
	l := linter{p: p}
	if limit := p.quota(); p.size > limit {
		l.warn(p.at, "", "the document has %d characters, more than the %d that IAM takes for a %s", p.size, limit, p.kind)
	}
	for _, s := range p.statements {
		l.principals(s)
		l.actions(s)
		l.resources(s)
		l.nothing(s)
		l.databases(s)
		l.conditions(s)
	}
	slices.SortStableFunc(l.warnings, func(a, b Warning) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return l.warnings
}

func (p *Policy) quota() int {
	if p.kind == TrustPolicy {
		return 2 * MaxTrustPolicySize // the raised quota
	}
	return MaxManagedPolicySize
}

type linter struct {
	p        *Policy
	warnings []Warning
}

func (l *linter) warn(at Position, path, format string, args ...any) {
	l.warnings = append(l.warnings, Warning{
		Policy: l.p.name, Line: at.Line, Column: at.Column, Path: path, Reason: fmt.Sprintf(format, args...),
	})
}

func (l *linter) principals(s *statement) {
	e := s.principals
	switch {
	case e == nil:
	case e.not && s.allow:
		l.warn(e.at, e.path(), "Allow with NotPrincipal lets in everybody who is not named; AWS does not take it in a role trust policy")
	case e.not && len(e.accounts) == 0 && !e.everyone && len(e.users)+len(e.roles) > 0:
		l.warn(e.at, e.path(), "NotPrincipal denies the principals that it names too, unless it also names the account (and the role, for a session)")
	case e.everyone && !e.not && s.allow && len(s.conditions) == 0:
		l.warn(e.at, e.path(), "everybody in the account may assume the role, without any permission of their own")
	}
	if e == nil {
		return
	}
	if !e.not && !e.everyone && len(e.services) > 0 && len(e.accounts)+len(e.users)+len(e.roles)+len(e.federated) == 0 {
		from := len(l.warnings)
		l.warn(e.at, e.path(), "no AWS service calls this server; the statement matches no one")
		l.deny(s, from)
	}
	for _, arn := range slices.Concat(e.users, e.roles, e.federated) {
		if parts := strings.SplitN(arn, ":", 3); len(parts) == 3 {
			l.partition(e.at, e.path(), parts[1])
		}
	}
	if e.not || !s.allow || len(e.federated) == 0 {
		return
	}
	if !s.covers("sts:AssumeRoleWithWebIdentity") && !s.covers("sts:AssumeRoleWithSAML") {
		l.warn(e.at, e.path(), "callers of identity providers use sts:AssumeRoleWithWebIdentity or sts:AssumeRoleWithSAML, which the statement does not allow")
	}
	for _, provider := range e.federated {
		_, name, oidc := strings.Cut(provider, ":oidc-provider/")
		if !strings.Contains(provider, ":") {
			name, oidc = provider, true
		}
		if oidc && !s.hasKeyPrefix(lowerKey(name)+":") {
			l.warn(e.at, e.path(), "every token of %s is accepted; restrict it by %s:sub or %s:aud", name, name, name)
		}
	}
}

func (s *statement) hasKeyPrefix(prefix string) bool {
	return slices.ContainsFunc(s.conditions, func(c condition) bool { return strings.HasPrefix(c.key, prefix) })
}

// covers reports whether the Action or NotAction element matches an action of
// the table.
func (s *statement) covers(name string) bool {
	i := knownAction(name)
	return i >= 0 && s.known&(1<<i) != 0
}

func (l *linter) actions(s *statement) {
	for i := range s.actions {
		e := &s.actions[i]
		service, name, found := strings.Cut(e.text, ":")
		switch {
		case strings.Contains(e.text, "**"):
			l.warn(e.at, e.path(), "two stars in a row are one")
		case !found:
			continue
		case !served(service):
			l.warn(e.at, e.path(), "the service %s is not served here; the entry has no effect", service)
			continue
		}
		if !e.coversAny() {
			from := len(l.warnings)
			l.warn(e.at, e.path(), "no action of %s that is served here matches %s%s", strings.ToLower(service), name, suggestion(e.text))
			if !s.notAction {
				l.deny(s, from)
			}
		}
		if s.allow && !s.notAction && !s.notResource {
			l.unusedAction(s, e)
		}
	}
}

func (e *entry) coversAny() bool {
	for i := range actions {
		if e.covers(&actions[i]) {
			return true
		}
	}
	return false
}

// suggestion returns the action whose name is nearest to a misspelt one.
func suggestion(text string) string {
	best, distance := "", 4
	for i := range actions {
		if d := editDistance(strings.ToLower(text), strings.ToLower(actions[i].name)); d < distance {
			best, distance = actions[i].name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; is " + best + " meant?"
}

// Nearest returns the text of a list that is nearest to a misspelt one, or "" if none differs by
// at most two letters.
func Nearest(text string, list []string) string {
	best, distance := "", 3
	for _, one := range list {
		if len(one)-len(text) > 2 || len(text)-len(one) > 2 {
			continue
		}
		if d := editDistance(strings.ToLower(text), strings.ToLower(one)); d < distance || d == distance && best != "" && one < best {
			best, distance = one, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// unusedAction warns of an action that applies to none of the statement's resources.
func (l *linter) unusedAction(s *statement, e *entry) {
	if s.anyResource {
		return
	}
	for i := range actions {
		a := &actions[i]
		if !e.covers(a) {
			continue
		}
		if len(a.resources) == 0 {
			continue // the action needs the resource "*", and a wildcard entry may not be meant for it
		}
		for j := range s.resources {
			if s.resources[j].mayBeFor(a) {
				return
			}
		}
	}
	if i := knownAction(e.text); i >= 0 && len(actions[i].resources) == 0 {
		l.warn(e.at, e.path(), `%s knows no resources; it takes effect with Resource "*" only`, actions[i].name)
	} else if i >= 0 {
		l.warn(e.at, e.path(), "no resource of the statement is for %s, which is about %s", actions[i].name, strings.Join(actions[i].resources, " or "))
	}
}

// mayBeFor reports whether an entry can match a resource of one of the types that an action has.
func (e *entry) mayBeFor(a *action) bool {
	service, resourceType, known := e.resourceType()
	if !known {
		return true
	}
	owner, _, _ := strings.Cut(a.name, ":")
	if owner == "sts" {
		owner = "iam" // the ARNs of roles and users are IAM's, whatever the service
	}
	return service == owner && (resourceType == "" || slices.Contains(a.resources, resourceType))
}

// resourceType returns the service and the type of an entry's resource. The type is empty if a
// wildcard covers it.
func (e *entry) resourceType() (service, resourceType string, known bool) {
	if e.text == "*" {
		return "", "", false
	}
	parts := splitOutsideVariables(e.text, true)
	if len(parts) < 6 {
		return parts[2], "", true
	}
	resourceType = typeOf(parts[5])
	if strings.ContainsAny(resourceType, "*?$") {
		resourceType = ""
	}
	return parts[2], resourceType, true
}

func (l *linter) resources(s *statement) {
	for i := range s.resources {
		e := &s.resources[i]
		from := len(l.warnings)
		parts := splitOutsideVariables(e.text, true)
		switch {
		case wildResourceType(parts) && (s.allow || s.notResource || s.canMatch(e, &Site{}, false)):
			l.warn(e.at, e.path(), "a wildcard cannot stand for the resource type; in an Allow the entry matches nothing")
		case strings.Contains(e.text, "**"):
			l.warn(e.at, e.path(), "two stars in a row are one")
		case len(parts) == 6 && !plausibleResource(parts[2], parts[5]):
			l.warn(e.at, e.path(), "the entry matches nothing; the form is %s", resourceForm(parts[2], parts[5]))
		}
		if len(parts) > 2 && served(parts[2]) {
			before := len(l.warnings)
			if l.partition(e.at, e.path(), parts[1]); !s.notResource {
				l.deny(s, before)
			}
		}
		l.variables(s, e.at, e.path(), e.text, &e.pattern)
		if l.p.variables && len(parts) == 6 && strings.Contains(e.text[:len(e.text)-len(parts[5])], "${") {
			l.warn(e.at, e.path(), "a policy variable before the fifth colon of an ARN is plain text")
		}
		if _, name, found := strings.Cut(e.text, ":dbuser:"); found {
			if _, user, _ := strings.Cut(name, "/"); strings.HasPrefix(user, "IAM:") || strings.HasPrefix(user, "IAMA:") {
				l.warn(e.at, e.path(), "a dbuser ARN has the plain DbUser; the prefix is part of the name that logs on")
			}
		}
		l.unusedResource(s, e)
		l.never(s, e, from)
	}
}

func plausibleAccount(s string) bool {
	return s == "" || s == "aws" || isAccount(s) || strings.ContainsAny(s, "*?$")
}

// partition warns of an ARN whose partition does not exist.
func (l *linter) partition(at Position, path, partition string) {
	if !isPartition(partition) && !strings.ContainsAny(partition, "*?$") {
		l.warn(at, path, "the ARN matches nothing: AWS has no partition %s", partition)
	}
}

// resourceForms are the forms of the last part of an ARN, by service and type.
var resourceForms = [...]struct{ service, form string }{
	{"redshift", "dbuser:CLUSTER/NAME"},
	{"redshift", "dbname:CLUSTER/NAME"},
	{"redshift", "dbgroup:CLUSTER/NAME"},
	{"redshift", "cluster:NAME"},
	{"iam", "role/NAME"},
	{"iam", "user/NAME"},
	{"iam", "group/NAME"},
	{"daypass", "credential/ID"},
	{"daypass", "principal/KIND/NAME"},
	{"daypass", "dbuser/CLUSTER/NAME"},
	{"daypass", "cluster/NAME"},
	{"daypass", "session/CLUSTER/ID"},
}

// resourceForm returns the form for a resource's type, or "".
func resourceForm(service, resource string) string {
	for _, f := range resourceForms {
		n := strings.IndexAny(f.form, ":/")
		if f.service == service && strings.HasPrefix(resource, f.form[:n]) && (len(resource) == n || resource[n] == ':' || resource[n] == '/') {
			return f.form
		}
	}
	return ""
}

// plausibleResource reports whether a resource pattern can match a resource in the form that its
// type has. A wildcard or a variable after the type may include a slash.
func plausibleResource(service, resource string) bool {
	form := resourceForm(service, resource)
	n := strings.IndexAny(form, ":/")
	if n < 0 {
		return true
	}
	rest := resource[n:]
	return rest != "" && rest[0] == form[n] &&
		(strings.Count(rest, "/") >= strings.Count(form[n:], "/") || strings.ContainsAny(rest, "*?$"))
}

// unusedResource warns of a resource that none of the statement's actions applies to.
func (l *linter) unusedResource(s *statement, e *entry) {
	if s.notAction || s.notResource || e.never {
		return
	}
	service, resourceType, known := e.resourceType()
	if !known || resourceType == "" || !served(service) {
		return
	}
	for i := range s.actions {
		// Actions that are not in the table may apply to any resource.
		if !s.actions[i].coversAny() || s.actions[i].text == "*" {
			return
		}
	}
	for i := range actions {
		if s.known&(1<<i) != 0 && e.mayBeFor(&actions[i]) {
			return
		}
	}
	if resourceType == "dbgroup" && s.covers("redshift:GetClusterCredentials") {
		l.warn(e.at, e.path(), "a dbgroup has no effect here: groups are decided by redshift:JoinGroup")
		return
	}
	l.warn(e.at, e.path(), "no action of the statement is about a %s", resourceType)
}

// variables warns of texts that look like policy variables in a document whose version has no
// variables, and of variables that never have a value.
func (l *linter) variables(s *statement, at Position, path, text string, patterns ...*pattern) {
	if !l.p.variables && strings.Contains(text, "${") {
		l.warn(at, path, `policy variables need "Version": "2012-10-17" in the document; without it this is plain text`)
	}
	for _, p := range patterns {
		p.variables(func(v *variable) {
			consequence := "the variable has no value"
			if v.hasDefault {
				consequence = "the variable always stands for its default"
			}
			l.key(s, at, path, v.key, v.name, consequence)
		})
	}
}
