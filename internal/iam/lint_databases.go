package iam

import "strings"

// databases warns of a restriction of databases that a caller walks around by
// leaving DbName out: then no dbname is checked, and the credentials are good
// for every database.
func (l *linter) databases(s *statement) {
	const get = "redshift:GetClusterCredentials"
	if s.notResource || s.notAction || !s.covers(get) || s.wantsDatabase() || l.p.deniesNoDatabase() {
		return
	}
	open := s.anyResource
	for i := range s.resources {
		_, resourceType, known := s.resources[i].resourceType()
		open = open || !known || resourceType == "dbuser" || resourceType == ""
	}
	for i := range s.resources {
		e := &s.resources[i]
		if _, resourceType, _ := e.resourceType(); resourceType != "dbname" {
			continue
		}
		_, database, _ := strings.Cut(e.text[strings.Index(e.text, ":dbname:")+1:], "/")
		switch {
		case strings.Trim(database, "*") == "":
		case !s.allow:
			l.warn(e.at, e.path, `without DbName this is not checked and the credentials are good for every database; also deny {"Null": {"redshift:DbName": "true"}}`)
		case open:
			l.warn(e.at, e.path, `without DbName this is not checked and the credentials are good for every database; add the condition {"StringEquals": {"redshift:DbName": …}}, or deny {"Null": {"redshift:DbName": "true"}}`)
		}
	}
}

// wantsDatabase reports whether the conditions fail, in an Allow, without the
// key redshift:DbName.
func (s *statement) wantsDatabase() bool {
	absent := NewContext()
	for i := range s.conditions {
		if c := &s.conditions[i]; c.key == "redshift:dbname" && !c.holds(absent, !s.allow) {
			return true
		}
	}
	return false
}

// deniesNoDatabase reports whether a Deny of the document catches a call without
// DbName.
func (p *Policy) deniesNoDatabase() bool {
	for _, s := range p.denies {
		if !s.covers("redshift:GetClusterCredentials") {
			continue
		}
		for i := range s.conditions {
			if c := &s.conditions[i]; c.key == "redshift:dbname" && c.holds(nil, true) {
				return true
			}
		}
	}
	return false
}
