package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// Offer is what a caller may ask for in one cluster.
type Offer struct {
	Cluster  string
	Host     string
	Port     int
	Database string // the cluster's default
	Users    []OfferedUser
	// Identity are the databases for which GetClusterCredentialsWithIAM is allowed.
	Identity     []OfferedDatabase
	IdentityUser string
	Groups       []OfferedName
}

// OfferedName is the name of something that the policies allow, or a pattern for names.
type OfferedName struct {
	Name    string
	Pattern bool // * and ? in Name stand for other characters
	// Some reports that a statement denies some of the names that match the pattern.
	Some bool
}

// OfferedUser is a database user.
type OfferedUser struct {
	OfferedName
	Create    bool // with AutoCreate
	Databases []OfferedDatabase
}

// OfferedDatabase is a database. An empty name stands for a call that names none, whose
// credential is for all databases of the cluster.
type OfferedDatabase struct {
	OfferedName
	Minutes int // the longest duration that is allowed
}

// maxOfferDecisions bounds the decisions of one list of offers. Each takes microseconds.
const maxOfferDecisions = 20_000

// Offers returns what the policies of a session let it ask for. The candidates are the names in
// the policies and the default databases; for each of them, the checks of the call itself
// decide. complete is false if there are too many to decide.
func (h *Handler) Offers(r *http.Request, s *ConsoleSession) (offers []Offer, complete bool, err error) {
	err = h.console(r, s, &action{service: redshiftService, name: "ConsoleOffers", readOnly: true}, func(c *call) error {
		c.unrecorded = true // nothing has been handed out
		o := offering{call: c, ask: c.ask(), left: maxOfferDecisions}
		// Reading all policies takes longer than a decision.
		o.durationMatters = c.caller.Policies.UsesKey("redshift:DurationSeconds")
		for _, cluster := range c.directory.Clusters() {
			if o.over() {
				break
			}
			if offer := o.cluster(cluster); len(offer.Users)+len(offer.Identity) > 0 {
				offers = append(offers, offer)
			}
		}
		complete = o.left > 0
		return nil
	})
	return offers, complete, err
}

// offering decides what to offer.
type offering struct {
	*call
	ask             *asking
	left            int  // decisions
	durationMatters bool // a policy has a condition on the duration
}

// over reports whether nothing more is decided: there has been too much, or the browser is gone.
func (o *offering) over() bool {
	if o.left > 0 && o.http.Context().Err() != nil {
		o.left = 0
	}
	return o.left <= 0
}

func (o *offering) allowed(k check) bool {
	if o.left--; o.left <= 0 {
		return false
	}
	return o.ask.decide(&k).Allowed()
}

const (
	getAction    = "redshift:GetClusterCredentials"
	iamGetAction = "redshift:GetClusterCredentialsWithIAM"
)

func (o *offering) cluster(cluster *directory.Cluster) Offer {
	offer := Offer{Cluster: cluster.Identifier, Host: cluster.Host, Port: cluster.Port, Database: cluster.Database, Users: o.users(cluster)}
	if o.caller.Role != nil {
		offer.IdentityUser = "IAMR:" + o.caller.Role.Name
	}
	for _, database := range o.databases(iamGetAction, cluster) {
		if d, ok := o.database(database, func(name iam.NamePattern, minutes int) []check { return o.identityChecks(cluster, name, minutes) }); ok {
			offer.Identity = append(offer.Identity, d)
		}
	}
	offer.Groups = o.groups(cluster)
	return offer
}

func (o *offering) users(cluster *directory.Cluster) (users []OfferedUser) {
	databases := o.databases(getAction, cluster)
	for _, user := range o.named(getAction, "dbuser", cluster) {
		if o.over() {
			break
		}
		if user.Exact && checkName("DbUser", user.Text, notPublic) != nil {
			continue // the call would be refused as invalid
		}
		found := OfferedUser{OfferedName: OfferedName{Name: user.Text, Pattern: !user.Exact}}
		for _, database := range databases {
			if d, ok := o.database(database, func(name iam.NamePattern, minutes int) []check { return o.checks(cluster, user, name, minutes) }); ok {
				found.Databases = append(found.Databases, d)
			}
		}
		if len(found.Databases) == 0 {
			continue
		}
		found.Some = !user.Exact && o.deniesSome(cluster, user)
		create := o.check("redshift:CreateClusterUser", "dbuser", cluster, user)
		create.keys = []conditionKey{{"redshift:DbUser", user.Text}}
		found.Create = o.allowed(create)
		users = append(users, found)
	}
	return users
}

func (o *offering) groups(cluster *directory.Cluster) (groups []OfferedName) {
	for _, group := range o.named("redshift:JoinGroup", "dbgroup", cluster) {
		if group.Exact && checkName("DbGroups", group.Text, lowerCaseOnly) != nil {
			continue
		}
		k := o.check("redshift:JoinGroup", "dbgroup", cluster, group)
		if !o.allowed(k) {
			continue
		}
		found := OfferedName{Name: group.Text, Pattern: !group.Exact}
		if found.Pattern {
			k.every = strings.HasSuffix(group.Text, "*")
			found.Some = !o.allowed(k)
		}
		groups = append(groups, found)
	}
	return groups
}

// named returns the candidates of one kind without duplicates, names before patterns.
func (o *offering) named(action, kind string, cluster *directory.Cluster) []iam.NamePattern {
	names := o.caller.Policies.Named(action, o.resource(kind, cluster.Identifier, ""), o.ask.context)
	slices.SortStableFunc(names, func(a, b iam.NamePattern) int {
		if a.Exact != b.Exact {
			if a.Exact {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Text, b.Text)
	})
	return names
}

// databases returns the candidates for databases. The first one is a call without a database.
func (o *offering) databases(action string, cluster *directory.Cluster) []iam.NamePattern {
	names := []iam.NamePattern{{}}
	add := func(list ...iam.NamePattern) {
		for _, n := range list {
			if (!n.Exact || checkName("DbName", n.Text, 0) == nil) && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	if cluster.Database != "" {
		add(iam.NamePattern{Text: cluster.Database, Exact: true})
	}
	list := append(o.named(action, "dbname", cluster), o.caller.Policies.ConditionNames(action, "redshift:DbName", o.ask.context)...)
	for _, n := range list {
		if n.Exact {
			add(n)
		}
	}
	for _, n := range list {
		if !n.Exact {
			add(n)
		}
	}
	return names
}

// database returns a database with the longest duration that its checks allow.
func (o *offering) database(name iam.NamePattern, checks func(name iam.NamePattern, minutes int) []check) (OfferedDatabase, bool) {
	for minutes := maxDuration / 60; minutes >= minDuration/60 && o.left > 0; minutes-- {
		may := true
		for _, k := range checks(name, minutes) {
			if may = o.allowed(k); !may {
				break
			}
		}
		if may {
			return OfferedDatabase{OfferedName{Name: name.Text, Pattern: name.Text != "" && !name.Exact}, minutes}, true
		}
		if minutes == maxDuration/60 && !o.durationMatters {
			break
		}
	}
	return OfferedDatabase{}, false
}

// checks returns the checks of GetClusterCredentials without groups and without AutoCreate. For a
// pattern the resource is the pattern's text.
func (o *offering) checks(cluster *directory.Cluster, user, database iam.NamePattern, minutes int) []check {
	keys := []conditionKey{{"redshift:DbUser", user.Text}, {"redshift:DurationSeconds", strconv.Itoa(minutes * 60)}}
	if database.Text != "" {
		keys = append(keys, conditionKey{"redshift:DbName", database.Text})
	}
	first := o.check(getAction, "dbuser", cluster, user)
	first.keys = keys
	checks := []check{first}
	if database.Text != "" {
		second := o.check(getAction, "dbname", cluster, database)
		second.keys = keys
		checks = append(checks, second)
	}
	return checks
}

func (o *offering) identityChecks(cluster *directory.Cluster, database iam.NamePattern, minutes int) []check {
	k := o.check(iamGetAction, "dbname", cluster, database)
	k.keys = []conditionKey{{"redshift:DurationSeconds", strconv.Itoa(minutes * 60)}}
	if database.Text == "" {
		k.resource = o.resource("dbname", cluster.Identifier, "*")
		k.every, k.everyKey = true, "redshift:DbName"
	} else {
		k.keys = append(k.keys, conditionKey{"redshift:DbName", database.Text})
	}
	return []check{k}
}

func (o *offering) check(action, kind string, cluster *directory.Cluster, name iam.NamePattern) check {
	return check{action: action, resource: o.resource(kind, cluster.Identifier, name.Text), tags: &cluster.Tags}
}

// deniesSome reports whether a statement denies database users that match a pattern.
func (o *offering) deniesSome(cluster *directory.Cluster, name iam.NamePattern) bool {
	k := o.check(getAction, "dbuser", cluster, name)
	k.denyOnly = true
	k.every, k.everyKey = strings.HasSuffix(name.Text, "*"), "redshift:DbUser"
	o.left--
	d := o.ask.decide(&k)
	return k.refuses(d)
}
