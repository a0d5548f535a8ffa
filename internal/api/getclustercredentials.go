package api

import (
	"errors"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/credential"
)

// Limits of GetClusterCredentials.
const (
	defaultDuration = 900 // seconds
	minDuration     = 900
	maxDuration     = 3600
	// maxGroups is ours; AWS publishes no limit. Each group takes a decision, and all
	// of them have to fit into one password.
	maxGroups = 50
)

// getClusterCredentials asks for a database user name and a password: Redshift API
// Reference, GetClusterCredentials. The values are as sent; act validates them once the
// caller is authorised.
type getClusterCredentials struct {
	target     target
	user       string
	database   optional
	duration   duration
	autoCreate bool
	notBool    error // AutoCreate is neither true nor false
	groups     []string
}

func readGetClusterCredentials(r *reader) *getClusterCredentials {
	p := &getClusterCredentials{
		user:     r.required("DbUser"),
		database: r.text("DbName"),
		target:   r.target(),
		duration: r.duration(),
		groups:   unique(r.list("DbGroups", "DbGroup", maxGroups)),
	}
	r.text("AutoCreate")
	p.autoCreate, _, p.notBool = r.query.Params.Bool("AutoCreate")
	return p
}

// needs returns the checks of docs/policy.md: for the database user, the database if
// the call names one, creating the user, and each group. The ARN has the plain name of
// the database user, which is not validated yet.
func (p *getClusterCredentials) needs(c *call) []check {
	keys := make([]conditionKey, 2, 3)
	keys[0] = conditionKey{"redshift:DbUser", p.user}
	keys[1] = p.duration.key()
	if p.database.given {
		keys = append(keys, conditionKey{"redshift:DbName", p.database.value})
	}
	k := check{action: "redshift:GetClusterCredentials", keys: keys}
	checks := c.first(make([]check, 0, 3+len(p.groups)), &p.target, k, "dbuser", p.user)
	if p.database.given {
		checks = append(checks, c.within(&p.target, k, "dbname", p.database.value))
	}
	// An invalid AutoCreate is refused in act. It counts as true here, so that it does
	// not get past this check.
	if p.autoCreate || p.notBool != nil {
		checks = append(checks, c.within(&p.target, check{action: "redshift:CreateClusterUser", keys: keys[:1]}, "dbuser", p.user))
	}
	for _, group := range p.groups {
		checks = append(checks, c.within(&p.target, check{action: "redshift:JoinGroup", hint: severalGroups(group)}, "dbgroup", group))
	}
	return checks
}

func (p *getClusterCredentials) act(c *call) (awsquery.Result, error) {
	if err := checkName("DbUser", p.user, notPublic); err != nil {
		return nil, err
	}
	if p.database.given {
		if err := checkName("DbName", p.database.value, 0); err != nil {
			return nil, err
		}
	}
	for i, group := range p.groups {
		if err := checkName("DbGroups.DbGroup."+strconv.Itoa(i+1), group, lowerCaseOnly); err != nil {
			invalid, ok := errors.AsType[*awsquery.Error](err)
			if several := severalGroups(group); several != "" && ok {
				invalid.Message = strings.TrimSuffix(invalid.Message, ".") + several + "."
			}
			return nil, err
		}
	}
	lifetime, err := p.duration.lifetime()
	if err != nil {
		return nil, err
	}
	if p.notBool != nil {
		return nil, p.notBool
	}
	if p.target.err != nil {
		return nil, p.target.err
	}
	return c.mint(credential.Grant{
		Cluster:    p.target.cluster.Identifier,
		Database:   p.database.value,
		DBUser:     p.user,
		DBGroups:   p.groups,
		AutoCreate: p.autoCreate,
		Kind:       credential.DatabaseUser,
	}, lifetime)
}

// severalGroups returns a hint for a group name that is a list of names: the AWS CLI
// takes `--db-groups a,b` for one name.
func severalGroups(group string) string {
	if len(strings.FieldsFunc(group, func(r rune) bool { return r == ',' || r == ' ' })) < 2 {
		return ""
	}
	return ". Several groups are several parameters; the AWS CLI separates them by spaces: --db-groups a b"
}
