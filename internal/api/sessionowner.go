package api

import (
	"strings"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// keyOwner is the condition key with the aws:userid of the principal whose credential opened a
// session. Redshift's Data API has the same for statements, redshift-data:statement-owner-iam-userid.
// A policy compares it with ${aws:userid} to allow a principal its own sessions only.
//
// The owner is the principal, never the database user: several principals may use one. Two people
// with the same IAM role and session name are one principal, to policies, revocations and the
// audit log alike.
const keyOwner = "daypass:session-owner-iam-userid"

// ownerKeys returns the condition key for a session of the principal with this ARN. It is absent
// for a principal that the configuration does not have (any more), and for a session without one.
func ownerKeys(d *directory.Directory, principal string) []conditionKey {
	arn, err := iam.ParseARN(principal)
	if err != nil || arn.Partition != d.Partition || arn.Account != d.Account {
		return nil
	}
	kind, name, _ := strings.Cut(arn.Resource, "/")
	switch {
	case arn.Service == "iam" && kind == "user":
		if user, ok := d.User(lastPart(name)); ok && user.ARN == principal {
			return []conditionKey{{keyOwner, user.ID}}
		}
	case arn.Service == "sts" && kind == "assumed-role":
		role, session, _ := strings.Cut(name, "/")
		if found, ok := d.Role(role); ok && session != "" && sessionARN(d, found, session) == principal {
			return []conditionKey{{keyOwner, found.ID + ":" + session}}
		}
	}
	return nil
}

// mayList returns the check that lets a caller list sessions: of all principals, or else of some
// owners. Every session of the list is checked by itself, with its owner.
func (c *call) mayList(t *target, cluster string) check {
	all := t.check("daypass:ListSessions", c.own("cluster/"+cluster), nil)
	some := all
	some.someKey = keyOwner
	ask := c.ask()
	if !ask.decide(&all).Allowed() && ask.decide(&some).Allowed() {
		return some
	}
	return all
}

// mayListOwn reports whether a caller who may not list the sessions of all principals may list their
// own.
func (c *call) mayListOwn() bool {
	own := check{action: "daypass:ListSessions", resource: c.own("cluster/*"), keys: []conditionKey{{keyOwner, c.caller.UserID}}}
	return c.caller.UserID != "" && c.ask().decide(&own).Allowed()
}
