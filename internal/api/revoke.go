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

// Revocations revokes credentials. *registry.Registry implements it. Safe for concurrent
// use.
type Revocations interface {
	Revoke(context.Context, registry.Revocation) (registry.Revocation, error)
	Revocations(context.Context) ([]registry.Revocation, error)
	// Revoked reports whether a revocation reaches a credential. After an error this is
	// unknown, and the credential must not be honoured.
	Revoked(registry.Credential) (bool, error)
	// PersonRevoked reports whether a sign-in for several IAM roles is revoked, by a revocation of
	// any role session with this name or of everything.
	PersonRevoked(session string, since time.Time) (bool, error)
}

// errRegistry returns a 5xx, so that the client tries again. Revoking twice does no harm.
func errRegistry(cause error) error {
	return &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable, Cause: cause,
		Message: "The registry of revocations cannot be read or written at the moment. It is not known whether the request was carried out; it may be repeated."}
}

// revokeCredentials revokes credentials. Unlike all actions that hand something out, it
// acts before it is recorded: a revocation stays in force if the audit log fails, and
// the caller gets an error.
type revokeCredentials struct {
	revocation   registry.Revocation
	issuedBefore string
	target       target // the cluster, if the call names one
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

// isDBUser reports whether a credential can have this database user. The name at logon,
// such as IAM:alice:analysts, is not one and would revoke nothing.
func isDBUser(name string) bool {
	kind, rest, identity := strings.Cut(name, ":")
	return !identity || (kind == "IAM" || kind == "IAMR") && !strings.Contains(rest, ":")
}

// needs returns the checks on the resource that the parameters name. A wide revocation also needs
// the resources that it reaches:
//
//   - DbUser without a cluster reaches the user in every cluster; All reaches every
//     cluster. The caller needs an Allow for each cluster, with the cluster's tags.
//   - A Deny for one cluster refuses every revocation that can reach it. A Deny for
//     database users, principals or credentials refuses All and the revocation of a
//     whole cluster. A Deny for principals or credentials also refuses the revocation
//     of a database user, because any principal can have that user's credentials.
//     Principal and CredentialId reach only what they name.
//   - A Deny for cluster/* is about those wide revocations: the caller may revoke for
//     single users, never for whole clusters. A Deny for principal/* or credential/*
//     refuses All only.
func (p *revokeCredentials) needs(c *call) []check {
	own := p.target.check(revokeAction, c.own(revocationResource(&p.revocation, c.directory.Account)), nil)
	r := reach{c, c.ask(), own.resource, []check{own}}
	v := &p.revocation
	clusters := c.directory.Clusters()
	if p.target.cluster != nil {
		clusters = []*directory.Cluster{p.target.cluster}
	} else if v.Cluster != "" {
		clusters = nil // it does not exist
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
	// Any principal can have credentials of a database user, so a Deny for one principal
	// refuses a revocation that may reach its credentials. The credentials of an identity
	// such as IAM:ana belong to one principal.
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

const revokeAction = "daypass:RevokeCredentials"

// revocationResource returns the resource of a revocation. A principal of another
// account, or a text that is not an ARN, is used as it is.
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
		return nil, awsquery.Invalid("DbUser", "must be the name of a database user: an ASCII letter, then ASCII letters, numbers and _ + . @ -, "+
			"64 characters at most; or an identity, such as IAM:ana")
	}
	if p.target.err != nil {
		return nil, p.target.err
	}
	if p.issuedBefore != "" {
		var err error
		if v.IssuedBefore, err = parseIssuedBefore(p.issuedBefore, c.now); err != nil {
			return nil, err
		}
	}
	v.RevokedBy = c.caller.Principal.ARN
	sessions := c.handler.config.Sessions.List() // before the revocation, which ends them
	c.leave()                                    // the registry may take its time
	inForce, err := c.handler.config.Revocations.Revoke(c.http.Context(), v)
	if err != nil {
		return nil, errNotRevoked(err)
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

// parseIssuedBefore reads the parameter IssuedBefore, which must not be in the future.
func parseIssuedBefore(text string, now time.Time) (time.Time, error) {
	before, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return time.Time{}, awsquery.Invalid("IssuedBefore", "must be a time such as 2026-01-02T15:04:05Z")
	case before.After(now):
		return time.Time{}, awsquery.Invalid("IssuedBefore", "must not be in the future: what is still to be issued is for policies to refuse")
	}
	return before, nil
}

// errNotRevoked returns the answer to a revocation that the registry did not take.
func errNotRevoked(cause error) error {
	switch {
	case errors.Is(cause, registry.ErrInvalid):
		return &awsquery.Error{Code: "InvalidParameterValue", Status: http.StatusBadRequest, Cause: cause,
			Message: "What is to be revoked is not the identifier, ARN or name of anything that a credential can be about."}
	case errors.Is(cause, registry.ErrTooMany):
		return &awsquery.Error{Code: "LimitExceeded", Status: http.StatusConflict, Cause: cause,
			Message: "There are too many revocations: " + strconv.Itoa(registry.MaxByOne) + " of one principal, " + strconv.Itoa(registry.MaxInAll) +
				" in all, are remembered, for 65 minutes each or, of principals, 12 hours. Revoke by Principal or DbUser instead of one credential after the other; ClusterIdentifier and All are always taken."}
	}
	return errRegistry(cause)
}

// checkPrincipal requires the ARN that policies use for the principal. An IAM role has
// only one, so another spelling cannot get past a policy.
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
		role, ok := c.directory.Role(lastPart(name))
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

// listRevocations lists the revocations in force, the oldest first.
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
	c.leave() // the registry may take its time
	list, err := c.handler.config.Revocations.Revocations(c.http.Context())
	if err != nil {
		return nil, errRegistry(err)
	}
	if err := c.enter(c.handler.pressure.work); err != nil {
		return nil, err
	}
	// A Deny for one cluster hides its revocations from a caller who may list all.
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
