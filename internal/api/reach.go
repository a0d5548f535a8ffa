package api

import (
	"strings"

	"github.com/daypass/daypass/internal/iam"
)

// reach collects the checks on everything that a revocation reaches.
type reach struct {
	call   *call
	ask    *asking
	told   string
	checks []check
}

// identity adds the check on the principal that a database user belongs to: the IAM
// user ana asks for all credentials of IAM:ana, and no one else does.
func (r *reach) identity(dbUser string) {
	kind, name, _ := strings.Cut(dbUser, ":")
	switch kind {
	case "IAM":
		resource := "user/" + name
		if user, ok := r.call.directory.User(name); ok {
			resource = lastField(user.ARN)
		}
		r.add(check{resource: r.call.own("principal/" + resource), denyOnly: true})
	case "IAMR":
		resource := "role/" + name
		if role, ok := r.call.directory.Role(name); ok {
			resource = lastField(role.ARN)
		}
		r.add(check{resource: r.call.own("principal/" + resource), denyOnly: true})
		r.role(resource)
	}
}

// lastField returns the part of an ARN after its last colon.
func lastField(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// role adds the check on the sessions of an IAM role, or on the IAM role of a session.
func (r *reach) role(resource string) {
	kind, name, _ := strings.Cut(resource, "/")
	switch kind {
	case "role":
		name = lastPart(name)
		r.add(check{resource: r.call.own("principal/assumed-role/" + name + "/*"), denyOnly: true, every: true})
	case "assumed-role":
		name, _, _ = strings.Cut(name, "/")
		if role, ok := r.call.directory.Role(name); ok {
			r.add(check{resource: r.call.own("principal/" + lastField(role.ARN)), denyOnly: true})
		}
	}
}

func (r *reach) add(k check) {
	k.action, k.told, k.wider = revokeAction, r.told, true
	k.hint = ". The call affects more than it names, and the caller may not revoke part of that: narrow it, for example with ClusterIdentifier"
	r.checks = append(r.checks, k)
}

// deniesEveryCluster reports whether a Deny is for all clusters, even for those that do
// not exist.
func (r *reach) deniesEveryCluster() bool {
	if !r.denies(check{resource: r.call.own("cluster/*")}) {
		return false
	}
	for _, cluster := range r.call.directory.Clusters() {
		if !r.denies(check{resource: r.call.own("cluster/" + cluster.Identifier), tags: &cluster.Tags}) {
			return false
		}
	}
	return true
}

// denies reports whether a Deny matches a check's resource.
func (r *reach) denies(k check) bool {
	k.action = revokeAction
	return r.ask.decide(&k).Effect == iam.ExplicitDeny
}
