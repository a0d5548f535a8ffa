package api

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/credential"
)

// Limits of GetClusterCredentials.
const (
	defaultDuration = 900 // seconds
	minDuration     = 900
	maxDuration     = 3600
	// maxGroups is ours; AWS publishes none. Each group is a decision to make,
	// and all of them have to fit into one password.
	maxGroups = 50
)

// getClusterCredentials is a request for a database user name and a password
// for it: Redshift API Reference, GetClusterCredentials. Values are as sent; act
// judges them, after the caller has been found to be allowed.
type getClusterCredentials struct {
	target     target
	user       string
	database   optional
	duration   duration
	autoCreate bool
	notBool    error // what is wrong with AutoCreate
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

// needs are the checks of docs/policy.md: the database user, the database when
// one is named, the making of the user, each group. The database user in the ARN
// is the plain name, and not yet a valid one.
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
	// What is neither true nor false is refused in act, and does not get there
	// unchecked.
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
			var invalid *awsquery.Error
			if several := severalGroups(group); several != "" && errors.As(err, &invalid) {
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

// severalGroups is what to say of a name that can only be several. The AWS CLI takes
// `--db-groups a,b` for one.
func severalGroups(group string) string {
	if len(strings.FieldsFunc(group, func(r rune) bool { return r == ',' || r == ' ' })) < 2 {
		return ""
	}
	return ". Several groups are several parameters; the AWS CLI separates them by spaces: --db-groups a b"
}

// duration is DurationSeconds of a credential, read once: what policies are asked
// about is what the credential gets.
type duration struct {
	seconds int
	text    string // as sent, for when it is no number
	err     error  // why it is none
}

func (r *reader) duration() duration {
	d := duration{text: r.text("DurationSeconds").value}
	var given bool
	if d.seconds, given, d.err = r.query.Params.Int("DurationSeconds"); !given {
		d.seconds = defaultDuration
	}
	return d
}

// key is the condition key. Where the parameter is not given the credential lasts
// 900 seconds all the same, whoever said so. A number has one spelling, or 03600
// would go around a Deny for 3600.
func (d *duration) key() conditionKey {
	if d.err != nil {
		return conditionKey{"redshift:DurationSeconds", d.text}
	}
	return conditionKey{"redshift:DurationSeconds", strconv.Itoa(d.seconds)}
}

// lifetime is 900 to 3600 seconds.
func (d *duration) lifetime() (time.Duration, error) {
	switch {
	case d.err != nil:
		return 0, d.err
	case d.seconds < minDuration || d.seconds > maxDuration:
		return 0, awsquery.Invalid("DurationSeconds", "must be between 900 and 3600")
	}
	return time.Duration(d.seconds) * time.Second, nil
}

// unique leaves out what is there already.
func unique(names []string) []string {
	for i := 1; i < len(names); i++ {
		if slices.Contains(names[:i], names[i]) {
			names = slices.Delete(names, i, i+1)
			i--
		}
	}
	return names
}
