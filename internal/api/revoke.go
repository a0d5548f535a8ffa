package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/registry"
)

// Revocations is where credentials are taken back; *registry.Registry is one.
// Safe for concurrent use.
type Revocations interface {
	Revoke(context.Context, registry.Revocation) (registry.Revocation, error)
	Revocations(context.Context) ([]registry.Revocation, error)
}

// errRegistry is a 5xx: trying again is right, and does no harm.
func errRegistry(cause error) error {
	return &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable, Cause: cause,
		Message: "The registry of revocations cannot be read or written at the moment. It is not known whether the request was carried out; it may be repeated."}
}

// own is an ARN of our own service. Resource types are
//
//	credential/ID                 one credential
//	principal/user/ana            whoever asked for credentials: the last part of
//	principal/role/etl            the ARN of an IAM user, an IAM role
//	principal/assumed-role/etl/s  or a role session
//	dbuser/CLUSTER/NAME           a database user; CLUSTER is * for all clusters
//	cluster/NAME                  a cluster; NAME is * for all
//	session/CLUSTER/ID            a session at the gateway
func (c *call) own(resource string) string {
	return "arn:" + c.directory.Partition + ":daypass:" + c.directory.Region + ":" + c.directory.Account + ":" + resource
}

// revokeCredentials takes credentials back. It is carried out before it is
// recorded, unlike everything that hands something out: what is taken back stays
// taken back when the audit log has failed, and the caller is told so.
type revokeCredentials struct {
	revocation   registry.Revocation
	issuedBefore string
	target       target // of the cluster, if one is named
}

func readRevokeCredentials(r *reader) *revokeCredentials {
	p := &revokeCredentials{revocation: registry.Revocation{
		CredentialID: r.text("CredentialId").value,
		Principal:    r.text("Principal").value,
		DBUser:       r.text("DbUser").value,
		Cluster:      r.text("ClusterIdentifier").value,
	}}
	p.issuedBefore = r.text("IssuedBefore").value
	if v := &p.revocation; v.CredentialID != "" {
		id, ok := credential.ParseID(v.CredentialID)
		if !ok {
			r.fail(awsquery.Invalid("CredentialId", "must be the identifier of a credential, such as 01JG3F5D4T0A1B2C3D4E5F6G7H"))
		}
		v.CredentialID = id
	}
	if !isDBUser(p.revocation.DBUser) {
		r.fail(awsquery.Invalid("DbUser", "must be a database user without the IAM: or IAMA: of its logon, and without groups; or an identity, such as IAM:ana"))
	}
	all, given, err := r.query.Params.Bool("All")
	if err != nil {
		r.fail(err)
	}
	if given {
		r.request = append(r.request, audit.Bool("all", all))
	}
	p.revocation.All = all
	if p.revocation.Cluster != "" {
		p.target = r.cluster(p.revocation.Cluster)
	}
	v := &p.revocation
	selectors := 0
	for _, one := range []bool{v.CredentialID != "", v.Principal != "", v.DBUser != "", v.Cluster != "" && v.DBUser == "", v.All} {
		if one {
			selectors++
		}
	}
	switch {
	case selectors == 0:
		r.fail(awsquery.Missing("CredentialId, Principal, DbUser, ClusterIdentifier or All"))
	case selectors > 1:
		r.fail(&awsquery.Error{Code: "InvalidParameterCombination", Status: http.StatusBadRequest,
			Message: "Only one of CredentialId, Principal, DbUser, ClusterIdentifier and All may be given; ClusterIdentifier may go with DbUser."})
	}
	return p
}

// isDBUser says whether a credential can be for a database user of this name. What
// a logon is called is not, and would revoke nothing.
func isDBUser(name string) bool {
	kind, rest, identity := strings.Cut(name, ":")
	return !identity || (kind == "IAM" || kind == "IAMR") && !strings.Contains(rest, ":")
}

// needs is the resource that the parameters name, and what a wider form reaches
// beside. DbUser without a cluster is the user in each cluster, All is each cluster:
// both have to be allowed there, with the cluster's tags. A Deny for one cluster
// holds for every form that can reach it, one for database users, principals or
// credentials for the forms that take them in: All, a cluster, and for principals and
// credentials a database user, whose credentials can be anyone's. Principal and
// CredentialId name the one that they are about. A Deny for every cluster there is,
// cluster/*, is about these forms: who may revoke for single users, never for
// clusters. So is one for every principal or credential, principal/*: it protects them
// from All only.
func (p *revokeCredentials) needs(c *call) []check {
	own := p.target.check(revokeAction, c.own(revocationResource(&p.revocation, c.directory.Account)), nil)
	r := reach{c, c.ask(), own.resource, []check{own}}
	v := &p.revocation
	clusters := c.directory.Clusters()
	if p.target.cluster != nil {
		clusters = []*directory.Cluster{p.target.cluster}
	} else if v.Cluster != "" {
		clusters = nil // there is none
	}
	whole := v.All || v.Cluster != "" && v.DBUser == ""
	protected := !whole && !r.deniesEveryCluster()
	for _, cluster := range clusters {
		at := "cluster/" + cluster.Identifier
		switch {
		case v.DBUser != "" && v.Cluster == "":
			r.add(check{resource: c.own("dbuser/" + cluster.Identifier + "/" + v.DBUser), tags: &cluster.Tags})
		case v.All:
			r.add(check{resource: c.own(at), tags: &cluster.Tags})
		}
		switch {
		case whole:
			r.add(check{resource: c.own("dbuser/" + cluster.Identifier + "/*"), tags: &cluster.Tags, denyOnly: true, every: true})
		case protected:
			r.add(check{resource: c.own(at), tags: &cluster.Tags, denyOnly: true})
		}
	}
	// The credentials of a database user can be anyone's: a Deny for one principal is one
	// for all that may reach its credentials. Those of an identity are one principal's.
	anyones := whole || v.DBUser != "" && !strings.Contains(v.DBUser, ":")
	for _, kind := range []string{"principal/*", "credential/*"} {
		if v.All || anyones && !r.denies(check{resource: c.own(kind)}) {
			r.add(check{resource: c.own(kind), denyOnly: true, every: true})
		}
	}
	if !r.denies(check{resource: c.own("principal/*")}) {
		r.identity(v.DBUser)
	}
	if arn, err := iam.ParseARN(v.Principal); err == nil {
		r.role(arn.Resource)
	}
	return r.checks
}

// identity asks about the principal whose identity a database user is: the
// credentials of IAM:ana are those that the IAM user ana has asked for, and no others.
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

// lastField is what an ARN has behind its last colon.
func lastField(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// role asks about the sessions of an IAM role that is named, and about the IAM role
// of a session that is.
func (r *reach) role(resource string) {
	kind, name, _ := strings.Cut(resource, "/")
	switch kind {
	case "role":
		name = name[strings.LastIndexByte(name, '/')+1:]
		r.add(check{resource: r.call.own("principal/assumed-role/" + name + "/*"), denyOnly: true, every: true})
	case "assumed-role":
		name, _, _ = strings.Cut(name, "/")
		if role, ok := r.call.directory.Role(name); ok {
			r.add(check{resource: r.call.own("principal/" + lastField(role.ARN)), denyOnly: true})
		}
	}
}

const revokeAction = "daypass:RevokeCredentials"

// reach gathers the checks on what a revocation reaches.
type reach struct {
	call   *call
	ask    *asking
	told   string
	checks []check
}

func (r *reach) add(k check) {
	k.action, k.told, k.wider = revokeAction, r.told, true
	k.hint = ". The call affects more than it names, and the caller may not revoke part of that: narrow it, for example with ClusterIdentifier"
	r.checks = append(r.checks, k)
}

// deniesEveryCluster reports a Deny for all clusters, those that do not exist among
// them.
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

// denies reports a Deny for a resource as it is named.
func (r *reach) denies(k check) bool {
	k.action = revokeAction
	return r.ask.decide(&k).Effect == iam.ExplicitDeny
}

// revocationResource names what a revocation is about. A principal of another
// account, or what is no ARN, stands for itself.
func revocationResource(v *registry.Revocation, account string) string {
	switch {
	case v.CredentialID != "":
		return "credential/" + v.CredentialID
	case v.Principal != "":
		if arn, err := iam.ParseARN(v.Principal); err == nil && arn.Account == account {
			return "principal/" + arn.Resource
		}
		return "principal/" + v.Principal
	case v.DBUser != "":
		return "dbuser/" + cmp.Or(v.Cluster, "*") + "/" + v.DBUser
	}
	return "cluster/" + cmp.Or(v.Cluster, "*")
}

func (p *revokeCredentials) act(c *call) (awsquery.Result, error) {
	v := p.revocation
	if v.Principal != "" {
		if err := c.checkPrincipal(v.Principal); err != nil {
			return nil, err
		}
	}
	if v.DBUser != "" && !registry.IsDBUser(v.DBUser) {
		return nil, awsquery.Invalid("DbUser", "must be the name of a database user: a letter, then letters, numbers and _ + . @ -, "+
			"64 characters at most; or an identity, such as IAM:ana")
	}
	if p.target.err != nil {
		return nil, p.target.err
	}
	if p.issuedBefore != "" {
		before, err := time.Parse(time.RFC3339, p.issuedBefore)
		switch {
		case err != nil:
			return nil, awsquery.Invalid("IssuedBefore", "must be a time such as 2026-01-02T15:04:05Z")
		case before.After(c.now):
			return nil, awsquery.Invalid("IssuedBefore", "must not be in the future: what is still to be issued is for policies to refuse")
		}
		v.IssuedBefore = before
	}
	v.RevokedBy = c.caller.Principal.ARN
	sessions := c.handler.config.Sessions.List() // before, since they end at once
	inForce, err := c.handler.config.Revocations.Revoke(c.http.Context(), v)
	switch {
	case errors.Is(err, registry.ErrInvalid):
		return nil, &awsquery.Error{Code: "InvalidParameterValue", Status: http.StatusBadRequest, Cause: err,
			Message: "What is to be revoked is not the identifier, ARN or name of anything that a credential can be about."}
	case errors.Is(err, registry.ErrTooMany):
		return nil, &awsquery.Error{Code: "LimitExceeded", Status: http.StatusConflict, Cause: err,
			Message: "There are too many revocations: " + strconv.Itoa(registry.MaxByOne) + " of one principal, " + strconv.Itoa(registry.MaxInAll) +
				" in all, are remembered for 65 minutes each. Revoke by Principal or DbUser instead of one credential after the other; ClusterIdentifier and All are always taken."}
	case err != nil:
		return nil, errRegistry(err)
	}
	c.taken = true
	found := 0
	for _, s := range sessions {
		if inForce.Revokes(s.credential()) {
			found++
		}
	}
	c.response = []audit.Field{audit.Time("revokedAt", inForce.RevokedAt), audit.Int("sessions", int64(found))}
	var warnings []string
	if found == 0 {
		if warning := c.unknown(&v); warning != "" {
			warnings = append(warnings, warning)
		}
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) {
		e.Element("Revocation", func() { encodeRevocation(e, &inForce) })
		e.Int("Sessions", found)
		if len(warnings) > 0 {
			e.Strings("Warnings", "Warning", warnings)
		}
	}), nil
}

// checkPrincipal wants the ARN by which policies know a principal. An IAM role has
// one only, so that no policy about it can be gone around with another spelling.
func (c *call) checkPrincipal(principal string) error {
	arn, err := iam.ParseARN(principal)
	if err != nil || arn.Partition != c.directory.Partition || arn.Account != c.directory.Account || arn.Region != "" {
		return awsquery.Invalid("Principal", "must be the ARN of an IAM user, an IAM role or a role session of this account")
	}
	kind, name, _ := strings.Cut(arn.Resource, "/")
	switch {
	case name == "":
	case arn.Service == "iam" && kind == "user":
		return nil
	case arn.Service == "sts" && kind == "assumed-role" && strings.Count(name, "/") == 1 && !strings.HasSuffix(name, "/"):
		return nil
	case arn.Service == "iam" && kind == "role":
		role, ok := c.directory.Role(name[strings.LastIndexByte(name, '/')+1:])
		if ok && role.ARN != principal {
			return awsquery.Invalid("Principal", "must have the path of the IAM role")
		}
		return nil
	}
	return awsquery.Invalid("Principal", "must be the ARN of an IAM user, an IAM role or a role session")
}

func encodeRevocation(e *awsquery.Encoder, v *registry.Revocation) {
	for _, field := range []struct{ name, value string }{
		{"CredentialId", v.CredentialID}, {"Principal", v.Principal}, {"DbUser", v.DBUser}, {"ClusterIdentifier", v.Cluster},
	} {
		if field.value != "" {
			e.String(field.name, field.value)
		}
	}
	if v.All {
		e.Bool("All", true)
	}
	if !v.IssuedBefore.IsZero() {
		e.Time("IssuedBefore", v.IssuedBefore)
	}
	e.Time("RevokedAt", v.RevokedAt)
	e.String("RevokedBy", v.RevokedBy)
	e.Time("ExpiresAt", v.Expires())
}

// listRevocations lists what is remembered, the oldest first.
type listRevocations struct{ marker string }

func readListRevocations(r *reader) *listRevocations { return &listRevocations{readMarker(r)} }

func (*listRevocations) needs(c *call) []check {
	return []check{{action: "daypass:ListRevocations", resource: c.own("cluster/*")}}
}

func (p *listRevocations) act(c *call) (awsquery.Result, error) {
	page, err := readPage(c, p.marker)
	if err != nil {
		return nil, err
	}
	list, err := c.handler.config.Revocations.Revocations(c.http.Context())
	if err != nil {
		return nil, errRegistry(err)
	}
	// Who may list all does not see those of a cluster that a statement keeps from
	// them.
	ask := c.ask()
	list = slices.DeleteFunc(list, func(v registry.Revocation) bool {
		if v.Cluster == "" {
			return false
		}
		of := c.cluster(v.Cluster)
		k := of.check("daypass:ListRevocations", c.own("cluster/"+v.Cluster), nil)
		return !ask.decide(&k).Allowed()
	})
	slices.Reverse(list)
	place := func(v registry.Revocation) string {
		return sortableTime(v.RevokedAt) + revocationResource(&v, "")
	}
	list, marker := pageOf(page, list, place)
	return awsquery.ResultFunc(func(e *awsquery.Encoder) {
		if marker != "" {
			e.String("Marker", marker)
		}
		awsquery.List(e, "Revocations", "Revocation", list, func(e *awsquery.Encoder, v registry.Revocation) { encodeRevocation(e, &v) })
	}), nil
}

// sortableTime is a time as text that sorts like it.
func sortableTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z ") }

// pageOf cuts the page out of a list, which it sorts by place, and returns the
// marker of the next page. A marker is a place, not a row: what has come or gone
// since the last page does not matter.
func pageOf[T any](p page, list []T, place func(T) string) (cut []T, marker string) {
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(place(a), place(b)) })
	from, _ := slices.BinarySearchFunc(list, p.after, func(row T, after string) int {
		if place(row) > after {
			return 1
		}
		return -1
	})
	list = list[from:]
	if len(list) <= p.size {
		return list, ""
	}
	return list[:p.size], markerOf(place(list[p.size-1]))
}
