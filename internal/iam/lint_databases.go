package iam

import (
	"iter"
	"slices"
	"strings"
)

// These warnings are about the trap of docs/policy.md: a call without DbName is not checked
// against any dbname, and its credentials work for every database. So a caller with access to a
// database user can avoid every restriction of databases, unless a condition or a Deny prevents
// it.

const (
	getCredentials        = "redshift:GetClusterCredentials"
	getCredentialsWithIAM = "redshift:GetClusterCredentialsWithIAM"
	databaseKey           = "redshift:DbName"
)

// databases warns of a restriction that a caller can avoid.
func (l *linter) databases(s *statement) {
	if !s.covers(getCredentials) || l.p.deniesNoDatabase() {
		return
	}
	for e, cluster := range s.restrictions() {
		switch {
		case !s.allow:
			l.warn(e.at, e.path(), `without DbName this is not checked and the credentials are good for every database; also deny {"Null": {"redshift:DbName": "true"}}`)
		case s.opens(cluster):
			l.warn(e.at, e.path(), `without DbName this is not checked and the credentials are good for every database; add the condition {"StringEquals": {"redshift:DbName": …}}, or deny {"Null": {"redshift:DbName": "true"}}`)
		default:
			if _, other := walkAround(cluster, l.p); other != nil {
				l.warnAround(e, other.String())
			}
		}
	}
}

func (l *linter) warnAround(e *entry, opener string) {
	l.warn(e.at, e.path(), `without DbName this is not checked: %s gives credentials for every database; `+
		`add the condition {"StringEquals": {"redshift:DbName": …}} there, or deny {"Null": {"redshift:DbName": "true"}}`, opener)
}

// Warnings returns warnings that need all policies of a principal, because one policy may allow
// what another restricts. It does not repeat Policy.Warnings, the warnings about a single
// document.
func (p *Policies) Warnings() []Warning {
	if slices.ContainsFunc(p.Identity, (*Policy).deniesNoDatabase) || p.Boundary != nil && p.Boundary.deniesNoDatabase() {
		return nil
	}
	var warnings []Warning
	for _, policy := range p.Identity {
		l := linter{p: policy}
		for _, s := range policy.allows {
			if !s.covers(getCredentials) {
				continue
			}
			for e, cluster := range s.restrictions() {
				if _, own := walkAround(cluster, policy); own != nil || s.opens(cluster) || p.Boundary != nil && !p.Boundary.opens(cluster) {
					continue
				}
				if other, opener := walkAround(cluster, p.Identity...); opener != nil {
					l.warnAround(e, opener.String()+" of "+other.name)
				}
			}
		}
		warnings = append(warnings, l.warnings...)
	}
	return warnings
}

// walkAround finds a statement that gives a call without DbName credentials for all databases of a
// cluster. It ignores statements that allow every database by name, because that is intended. If
// such a statement has no condition, the databases are not restricted at all, and walkAround finds
// nothing.
func walkAround(cluster string, policies ...*Policy) (in *Policy, opener *statement) {
	for _, p := range policies {
		for _, s := range p.allows {
			switch every := s.everyDatabase(cluster); {
			case every && len(s.conditions) == 0:
				return nil, nil
			case !every && opener == nil && s.opens(cluster):
				in, opener = p, s
			}
		}
	}
	return in, opener
}

// restrictions yields the entries for databases with certain names, with their clusters.
func (s *statement) restrictions() iter.Seq2[*entry, string] {
	return func(yield func(*entry, string) bool) {
		for i := range s.resources {
			e := &s.resources[i]
			if cluster, database, ok := e.database(); ok && strings.Trim(database, "*") != "" && !yield(e, cluster) {
				return
			}
		}
	}
}

// database parses an entry for a dbname.
func (e *entry) database() (cluster, database string, ok bool) {
	if service, resourceType, _ := e.resourceType(); service != "redshift" || resourceType != "dbname" {
		return "", "", false
	}
	cluster, database, _ = strings.Cut(e.text[strings.Index(e.text, ":dbname")+len(":dbname"):], "/")
	return strings.TrimPrefix(cluster, ":"), database, true
}

func (p *Policy) opens(cluster string) bool {
	return slices.ContainsFunc(p.allows, func(s *statement) bool { return s.opens(cluster) })
}

// opens reports whether the statement gives a caller who names no database a database user of
// the cluster.
func (s *statement) opens(cluster string) bool {
	if !s.allow || !s.covers(getCredentials) || s.wantsDatabase() {
		return false
	}
	return s.notResource || slices.ContainsFunc(s.resources, func(e entry) bool {
		if e.anyOf() {
			return true
		}
		service, resourceType, _ := e.resourceType()
		_, rest, _ := strings.Cut(e.text, ":dbuser:")
		user, _, _ := strings.Cut(rest, "/")
		return service == "redshift" && resourceType == "dbuser" && mayBeSame(user, cluster)
	})
}

// everyDatabase reports whether the statement allows every database of the cluster if the call
// names it.
func (s *statement) everyDatabase(cluster string) bool {
	if !s.allow || !s.covers(getCredentials) {
		return false
	}
	if s.notResource {
		for range s.restrictions() {
			return false
		}
		return true
	}
	return slices.ContainsFunc(s.resources, func(e entry) bool {
		in, database, ok := e.database()
		return e.anyOf() || ok && strings.Trim(database, "*") == "" && mayBeSame(in, cluster)
	})
}

// anyOf reports whether the entry's wildcard covers users as well as databases.
func (e *entry) anyOf() bool {
	service, resourceType, known := e.resourceType()
	return !known || !e.never && service == "redshift" && resourceType == ""
}

// mayBeSame reports whether the clusters of two entries may be the same. Wildcards and variables
// may stand for anything.
func mayBeSame(a, b string) bool { return a == b || strings.ContainsAny(a+b, "*?$") }

// String returns the statement's name in warnings.
func (s *statement) String() string {
	if s.sid != "" {
		return s.sid
	}
	return s.path
}

// wantsDatabase reports whether the conditions of an Allow fail without the key redshift:DbName.
func (s *statement) wantsDatabase() bool {
	absent := NewContext()
	for i := range s.conditions {
		if c := &s.conditions[i]; c.key == "redshift:dbname" && !c.holds(absent, !s.allow, new(work)) {
			return true
		}
	}
	return false
}

// deniesNoDatabase reports whether the document has a Deny that matches a call without DbName.
func (p *Policy) deniesNoDatabase() bool {
	for _, s := range p.denies {
		if !s.covers(getCredentials) {
			continue
		}
		for i := range s.conditions {
			if c := &s.conditions[i]; c.key == "redshift:dbname" && c.holds(nil, true, new(work)) {
				return true
			}
		}
	}
	return false
}
