package api

import (
	"strings"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/iam"
)

// groupsTag is the principal tag with the groups of the session, separated by colons.
const groupsTag = "RedshiftDbGroups"

// refreshMargin is how long before the expiry a client should ask for a new password.
const refreshMargin = time.Minute

// withIAM asks for a password of the caller's own database user: Redshift API
// Reference, GetClusterCredentialsWithIAM.
type withIAM struct {
	target   target
	database optional
	duration duration
}

func readWithIAM(r *reader) *withIAM {
	return &withIAM{
		database: r.text("DbName"),
		target:   r.target(),
		duration: r.duration(),
	}
}

// needs returns the check of the action on the database or, without a name, on every database of
// the cluster. A policy for one database does not allow the latter. A Deny for one of them denies
// it, which AWS does not document.
func (p *withIAM) needs(c *call) []check {
	k := check{action: "redshift:GetClusterCredentialsWithIAM", keys: make([]conditionKey, 1, 2)}
	k.keys[0] = p.duration.key()
	database := "*"
	if p.database.given {
		database = p.database.value
		k.keys = append(k.keys, conditionKey{"redshift:DbName", database})
	} else {
		k.every, k.everyKey = true, "redshift:DbName"
	}
	return c.first(nil, &p.target, k, "dbname", database)
}

func (p *withIAM) act(c *call) (awsquery.Result, error) {
	if p.database.given {
		if err := checkName("DbName", p.database.value, 0); err != nil {
			return nil, err
		}
	}
	lifetime, err := p.duration.lifetime()
	if err != nil {
		return nil, err
	}
	groups, err := taggedGroups(c.caller.Tags)
	if err != nil {
		return nil, err
	}
	if p.target.err != nil {
		return nil, p.target.err
	}
	user := "IAM:"
	if c.caller.Role != nil {
		user = "IAMR:" + c.caller.Role.Name
	} else {
		user += c.caller.User.Name
	}
	credentials, err := c.mint(credential.Grant{
		Cluster:    p.target.cluster.Identifier,
		Database:   p.database.value,
		DBUser:     user,
		DBGroups:   groups,
		AutoCreate: true,
		Kind:       credential.Identity,
	}, lifetime)
	if err != nil {
		return nil, err
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) {
		credentials.EncodeXML(e)
		e.Time("NextRefreshTime", credentials.expiration.Add(-refreshMargin))
	}), nil
}

// taggedGroups returns the groups that the caller's tags name. They need no JoinGroup,
// since the operator or the identity provider set the tag. A group that cannot be
// joined is an error, so that no session lacks a group that its tag promises.
func taggedGroups(tags map[string]string) ([]string, error) {
	var groups []string
	for key, value := range tags {
		if iam.FoldKey(key) != iam.FoldKey(groupsTag) || value == "" {
			continue
		}
		for group := range strings.SplitSeq(value, ":") {
			if err := checkName("aws:PrincipalTag/"+groupsTag, group, lowerCaseOnly); err != nil {
				return nil, err
			}
			groups = append(groups, group)
		}
	}
	if len(groups) > maxGroups {
		return nil, awsquery.Invalid("aws:PrincipalTag/"+groupsTag, "must not name that many groups")
	}
	return unique(groups), nil
}
