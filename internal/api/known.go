package api

import (
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/registry"
)

// maxIssued bounds the names that issued keeps. Once it is full, no name is reported as
// unknown.
const maxIssued = 1 << 16

// issued remembers the database users for which this server issued credentials that have not
// expired. The zero value is ready.
type issued struct {
	mu    sync.Mutex
	until map[issuedTo]time.Time // when the last credential expires; guarded by mu
	full  bool                   // a name did not fit; guarded by mu
}

type issuedTo struct{ cluster, user string }

// add records a credential.
func (i *issued) add(cluster, user string, now, until time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.until == nil {
		i.until = make(map[issuedTo]time.Time)
	}
	to := issuedTo{cluster, user}
	if _, there := i.until[to]; !there && len(i.until) >= maxIssued {
		for old, expired := range i.until {
			if !now.Before(expired) {
				delete(i.until, old)
			}
		}
		if i.full = len(i.until) >= maxIssued; i.full {
			return
		}
	}
	if until.After(i.until[to]) {
		i.until[to] = until
	}
}

// knows reports whether a credential for the user may be in force. An empty cluster
// stands for all.
func (i *issued) knows(cluster, user string, now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.full {
		return true
	}
	for to, until := range i.until {
		if to.user == user && (cluster == "" || to.cluster == cluster) && now.Before(until) {
			return true
		}
	}
	return false
}

// unknown returns a warning if the database user or principal of a revocation is not
// known here, and "" otherwise. The revocation is in force either way, since another
// server may have issued the credentials.
func (c *call) unknown(v *registry.Revocation) string {
	switch {
	case v.Principal != "":
		return c.unknownPrincipal(v.Principal)
	case v.DBUser == "":
		return ""
	}
	kind, name, identity := strings.Cut(v.DBUser, ":")
	_, user := c.directory.User(name)
	_, role := c.directory.Role(name)
	switch {
	case identity && (kind == "IAM" && user || kind == "IAMR" && role):
		return ""
	case identity:
		return "DbUser " + v.DBUser + " is not known: the configuration has no such IAM user or IAM role. Check the name"
	case c.handler.issued.knows(v.Cluster, v.DBUser, c.now):
		return ""
	}
	where := "any cluster"
	if v.Cluster != "" {
		where = "cluster " + v.Cluster
	}
	return "DbUser " + v.DBUser + " is not known: this server has no session and no live credential for it in " + where +
		". Check the name, which is case-sensitive"
}

func (c *call) unknownPrincipal(principal string) string {
	arn, err := iam.ParseARN(principal)
	if err != nil {
		return ""
	}
	kind, name, _ := strings.Cut(arn.Resource, "/")
	last := lastPart(name)
	what, known := "IAM user", false
	var nearest string
	switch kind {
	case "user":
		u, ok := c.directory.User(last)
		known = ok && u.ARN == principal
		nearest = iam.Nearest(principal, c.directory.UserARNs())
	case "role":
		what = "IAM role"
		_, known = c.directory.Role(last) // the path was checked before
		nearest = iam.Nearest(principal, c.directory.RoleARNs())
	default: // assumed-role/ROLE/SESSION
		what = "IAM role"
		role, _, _ := strings.Cut(name, "/")
		_, known = c.directory.Role(role)
	}
	if known {
		return ""
	}
	warning := "Principal " + principal + " is not known: the configuration has no such " + what + ". Check the name"
	if nearest != "" {
		warning += "; is " + nearest + " meant?"
	}
	return warning
}
