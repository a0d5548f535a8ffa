package registry

import (
	"strings"
	"time"
)

// index finds out with a few map look-ups whether a credential is revoked, however many
// revocations there are. It is immutable.
type index struct {
	revisions map[string]uint64 // of the records in the index, by key
	decoded   map[string]Revocation

	// Each entry revokes the credentials issued before its time.
	credentials map[string]bound
	principals  map[string]bound
	users       map[user]bound
	clusters    map[string]bound
	all         bound
}

// user is a database user; an empty cluster is any.
type user struct{ cluster, name string }

// bound revokes all credentials that were issued before a time. The zero bound revokes nothing.
type bound struct {
	before time.Time
	every  bool
}

// includes compares whole seconds, as credentials have no fractions. A credential of the same
// second counts as issued before.
func (b bound) includes(issued time.Time) bool { return b.every || issued.Before(b.before) }

// with returns the bound of all that b or other includes.
func (b bound) with(other bound) bound {
	if other.before.After(b.before) {
		b.before = other.before
	}
	b.every = b.every || other.every
	return b
}

// newIndex makes an index of records. It reuses the unchanged parts of before, which may be
// nil.
func newIndex(before *index, records []Record) (*index, error) {
	x := &index{
		revisions: make(map[string]uint64, len(records)), decoded: make(map[string]Revocation, len(records)),
		credentials: map[string]bound{}, principals: map[string]bound{}, users: map[user]bound{}, clusters: map[string]bound{},
	}
	for _, record := range records {
		var r Revocation
		if before != nil && before.revisions[record.Key] == record.Revision {
			r = before.decoded[record.Key]
		} else {
			var err error
			if r, err = decode(record); err != nil {
				return nil, err
			}
		}
		x.revisions[record.Key], x.decoded[record.Key] = record.Revision, r
		b := bound{r.IssuedBefore, r.everyIssue()}
		if r.All {
			x.all = x.all.with(b) // records of later versions may have the same meaning
			continue
		}
		switch {
		case r.CredentialID != "":
			x.credentials[r.CredentialID] = b
		case r.Principal != "":
			x.principals[r.Principal] = b
		case r.DBUser != "":
			x.users[user{r.Cluster, r.DBUser}] = b
		default:
			x.clusters[r.Cluster] = b
		}
	}
	return x, nil
}

// Revokes reports whether the revocation applies to a credential.
func (r *Revocation) Revokes(c Credential) bool {
	x, err := newIndex(nil, []Record{{Key: r.key(), Value: r.encode()}})
	return err == nil && x.revoked(&c)
}

func (x *index) revoked(c *Credential) bool {
	if len(x.revisions) == 0 {
		return false
	}
	role := roleOf(c.Principal)
	return x.all.includes(c.IssuedAt) ||
		x.credentials[c.ID].includes(c.IssuedAt) ||
		x.principals[c.Principal].includes(c.IssuedAt) ||
		role != "" && x.principals[role].includes(c.IssuedAt) ||
		x.users[user{"", c.DBUser}].includes(c.IssuedAt) ||
		x.users[user{c.Cluster, c.DBUser}].includes(c.IssuedAt) ||
		x.clusters[c.Cluster].includes(c.IssuedAt)
}

// personRevoked looks at every revoked principal. It is asked about sign-ins only, a few times in
// an hour.
func (x *index) personRevoked(session string, since time.Time) bool {
	if x.all.includes(since) {
		return true
	}
	for principal, b := range x.principals {
		if b.includes(since) && strings.HasSuffix(principal, "/"+session) && roleOf(principal)+"/"+session == principal {
			return true
		}
	}
	return false
}
