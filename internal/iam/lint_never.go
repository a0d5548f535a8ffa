package iam

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// No one notices a Deny that matches nothing: the call that it should refuse succeeds. So each
// entry of a Deny that can match no request of the actions served here gets a warning.

const deniesNothing = "this Deny can never match and denies nothing: "

// Site describes where policies are used. ARNs there have these parts in common.
type Site struct {
	Partition, Region, Account string
	// Clusters are the identifiers of all clusters, nil if they are not known.
	Clusters []string
	// Principals has the ARNs of all IAM users, IAM roles and identity providers, and for each IAM
	// role the ARN of its sessions up to the session's name (arn:P:sts::ACCOUNT:assumed-role/ROLE/).
	// It is nil if they are not known.
	Principals map[string]bool
}

// shape returns patterns for a type of resource. A name that is not known may be anything.
func (site *Site) shape(service, resourceType string) (shapes [][]charSet) {
	var form string
	for _, f := range resourceForms {
		if f.service == service && f.form[:strings.IndexAny(f.form, ":/")] == resourceType {
			form = f.form
		}
	}
	clusters := []string{""}
	if site.Clusters != nil && (strings.Contains(form, "CLUSTER") || resourceType == "cluster") {
		clusters = append(slices.Clone(site.Clusters), "*") // the resource that stands for all clusters
	}
	// Names have no colons, except those of identities. Otherwise a * could match
	// another resource's ARN inside a name.
	prefixes, tail := []string{""}, segmentChar
	switch {
	case service == "redshift":
		tail = nameChar
	case service == "daypass" && resourceType == "dbuser":
		prefixes = []string{"", "IAM:", "IAMR:"}
	}
	for _, cluster := range clusters {
		for _, prefix := range prefixes {
			var list []charSet
			text := func(known string) {
				for i := range len(known) {
					list = append(list, charSet{byte: known[i]})
				}
			}
			part := func(known string, c class) {
				if text(known); known == "" {
					list = append(list, charSet{class: c, many: true})
				}
			}
			text("arn:")
			part(site.Partition, segmentChar)
			text(":" + service + ":")
			if service != "iam" {
				part(site.Region, segmentChar)
			}
			text(":")
			part(site.Account, digit)
			text(":" + form[:len(resourceType)+1])
			switch rest := form[len(resourceType)+1:]; {
			case strings.HasPrefix(rest, "CLUSTER/"):
				part(cluster, nameChar)
				text("/" + prefix)
				part("", tail)
			case resourceType == "cluster":
				part(cluster, nameChar)
			default: // paths, and names that callers choose
				part("", tail)
			}
			shapes = append(shapes, list)
		}
	}
	return shapes
}

// actionResources returns patterns for the resources that an action can apply to.
func (site *Site) actionResources(a *action) (shapes [][]charSet) {
	service, _, _ := strings.Cut(a.name, ":")
	if service == "sts" {
		service = "iam"
	}
	for _, resourceType := range a.resources {
		shapes = append(shapes, site.shape(service, resourceType)...)
	}
	if len(a.resources) == 0 {
		shapes = append(shapes, []charSet{{byte: '*'}})
	}
	return shapes
}

// canMatch reports whether an entry can match a resource of one of the statement's actions. It
// returns true if none of the actions is served here.
func (s *statement) canMatch(e *entry, site *Site, loose bool) bool {
	if e.text == "*" {
		return true
	}
	list, _ := places(e.tokens, nil, loose)
	for i := range actions {
		if s.known&(1<<i) == 0 {
			continue
		}
		for _, shape := range site.actionResources(&actions[i]) {
			if w := new(work); overlap(list, shape, w) || w.spent() {
				return true
			}
		}
	}
	return s.known == 0
}

// never warns if an entry of a resource element can match nothing. l.warnings[from:] are the
// warnings about this entry so far; if there are any, they explain it already.
func (l *linter) never(s *statement, e *entry, from int) {
	if s.notResource || e.never || s.canMatch(e, &Site{}, false) {
		return
	}
	if len(l.warnings) == from {
		l.warn(e.at, e.path(), "%s", s.why(e, &Site{}))
	}
	l.deny(s, from)
}

// deny marks l.warnings[from:] as reasons why a Deny never matches.
func (l *linter) deny(s *statement, from int) {
	if s.allow {
		return
	}
	for i := from; i < len(l.warnings); i++ {
		if w := &l.warnings[i]; !strings.HasPrefix(w.Reason, deniesNothing) {
			w.Reason = deniesNothing + w.Reason
		}
	}
}

// why returns the reason why an entry matches nothing.
func (s *statement) why(e *entry, site *Site) string {
	if s.canMatch(e, site, true) {
		return fmt.Sprintf("a * or ? does not stand for a colon, and this entry would need that; write the resource type out, as in %s", s.example(site))
	}
	var about []string
	for i := range actions {
		if s.known&(1<<i) != 0 {
			about = append(about, cmp.Or(strings.Join(actions[i].resources, " or "), "*"))
		}
	}
	slices.Sort(about)
	return "the entry matches nothing: the statement's actions are about " + strings.Join(slices.Compact(about), ", ")
}

// example returns the form of a resource of the statement's first action.
func (s *statement) example(site *Site) string {
	partition := cmp.Or(site.Partition, "aws")
	for i := range actions {
		if a := &actions[i]; s.known&(1<<i) != 0 && len(a.resources) > 0 {
			service, _, _ := strings.Cut(a.name, ":")
			region := "REGION"
			if service == "sts" || service == "iam" {
				service, region = "iam", ""
			}
			for _, f := range resourceForms {
				if f.service == service && strings.HasPrefix(f.form, a.resources[0]) {
					return "arn:" + partition + ":" + service + ":" + region + ":ACCOUNT:" + f.form
				}
			}
		}
	}
	return "arn:" + partition + ":redshift:REGION:ACCOUNT:dbuser:CLUSTER/NAME"
}

// nothing warns of a statement that excludes every action or every resource.
func (l *linter) nothing(s *statement) {
	from := len(l.warnings)
	if s.notAction && s.known == 0 {
		e := &s.actions[0]
		l.warn(e.at, e.path(), "NotAction leaves no action that is served here")
	}
	if s.notResource {
		for i := range s.resources {
			if e := &s.resources[i]; e.text == "*" {
				l.warn(e.at, e.path(), `NotResource "*" leaves no resource`)
			}
		}
	}
	l.deny(s, from)
}

// Elsewhere warns of resources and principals outside this site, which no request is about.
func (p *Policy) Elsewhere(site Site) []Warning {
	l := linter{p: p}
	for _, s := range p.statements {
		for i := range s.resources {
			from := len(l.warnings)
			l.elsewhere(s, &s.resources[i], &site)
			if !s.notResource {
				l.deny(s, from)
			}
		}
		l.elsewherePrincipals(s, &site)
		l.elsewhereConditions(s, &site)
	}
	return l.warnings
}

func (l *linter) elsewhere(s *statement, e *entry, site *Site) {
	parts := splitOutsideVariables(e.text, true)
	if e.text == "*" || !typedService(parts[2]) {
		return
	}
	region := site.Region
	if parts[2] == "iam" || parts[2] == "sts" {
		region = ""
	}
	if len(parts) == 6 && plausibleAccount(parts[4]) { // otherwise a star stands for more than one part
		for _, part := range []struct{ name, is, here string }{
			{"partition", parts[1], site.Partition}, {"region", parts[3], region}, {"account", parts[4], site.Account},
		} {
			if part.is != part.here && !strings.ContainsAny(part.is, "*?$") {
				l.warn(e.at, e.path(), "the %s is %q and that of this server %q; the entry matches nothing", part.name, part.is, part.here)
				return
			}
		}
	}
	anywhere := Site{Partition: site.Partition, Region: site.Region, Account: site.Account}
	switch {
	case e.never || !s.canMatch(e, &Site{}, false):
		// Warnings has already reported this, or it is an exception that is never needed.
	case s.notResource:
		if site.lacks(s, e) { // a misspelt exception is none
			l.warn(e.at, e.path(), "the exception is for none of the clusters of this server (%s)", site.clustersNear(e.cluster()))
		}
	case !s.canMatch(e, &anywhere, false):
		l.warn(e.at, e.path(), "%s", s.why(e, &anywhere))
	case site.lacks(s, e):
		// A cluster of that name may be added later. Still, a misspelt name deserves a warning: a
		// Deny with it denies nothing, and an Allow with it leaves its holders refused.
		l.warn(e.at, e.path(), "the entry is for none of the clusters of this server (%s)", site.clustersNear(e.cluster()))
	}
}

// lacks reports whether an entry is for clusters only, and this site has none of them. If no clusters
// are known, or a policy variable is part of the cluster's name, an Allow may be meant for others.
func (site *Site) lacks(s *statement, e *entry) bool {
	cluster := e.cluster()
	if slices.Contains(site.Clusters, cluster) || s.allow && (len(site.Clusters) == 0 || strings.Contains(cluster, "$")) {
		return false
	}
	return site.Clusters != nil && !s.canMatch(e, site, false)
}

// clustersNear returns the cluster that a misspelt name is probably for, or else the first clusters.
func (site *Site) clustersNear(name string) string {
	if near := Nearest(name, site.Clusters); near != "" && name != "" {
		return "is " + near + " meant?"
	}
	if len(site.Clusters) > 10 {
		return strings.Join(site.Clusters[:10], ", ") + ", …"
	}
	return strings.Join(site.Clusters, ", ")
}

// cluster returns the cluster's name, or the pattern for it, in an entry that writes its resource type
// out, and otherwise "".
func (e *entry) cluster() string {
	parts := splitOutsideVariables(e.text, true)
	if len(parts) < 6 {
		return ""
	}
	form := resourceForm(parts[2], parts[5])
	kind := typeOf(form)
	if kind != "cluster" && !strings.Contains(form, "CLUSTER") || len(parts[5]) <= len(kind) {
		return ""
	}
	name, _, _ := strings.Cut(parts[5][len(kind)+1:], "/")
	return name
}

// elsewherePrincipals warns of principals that make no requests here: those of other accounts, and
// those that do not exist.
func (l *linter) elsewherePrincipals(s *statement, site *Site) {
	e := s.principals
	if e == nil {
		return
	}
	from := len(l.warnings)
	here := 0
	for _, account := range e.accounts {
		if account == site.Account {
			here++
		} else {
			l.warn(e.at, e.path(), "the account %s is not that of this server, %s; it matches no one", account, site.Account)
		}
	}
	for _, text := range slices.Concat(e.users, e.roles, e.federated) {
		switch arn, err := ParseARN(text); {
		case err == nil && arn.Account != site.Account:
			l.warn(e.at, e.path(), "%s is of another account than this server, %s; it matches no one", text, site.Account)
		case err == nil && arn.Partition != site.Partition:
			l.warn(e.at, e.path(), "%s is of another partition than this server, %s; it matches no one", text, site.Partition)
		case site.Principals != nil && !site.knows(text):
			l.warn(e.at, e.path(), "the configuration does not have %s%s; it matches no one", text, site.namesake(text))
		default:
			here++
		}
	}
	if !e.not && !e.everyone && here == 0 {
		l.deny(s, from)
	}
}

// knows reports whether a principal that a policy names exists: one with an ARN, or an identity
// provider by the name at the end of its ARN.
func (site *Site) knows(text string) bool {
	switch arn, err := ParseARN(text); {
	case err != nil:
		return site.Principals["arn:"+site.Partition+":iam::"+site.Account+":oidc-provider/"+text]
	case arn.Service == "sts":
		return site.Principals[text[:strings.LastIndexByte(text, '/')+1]]
	}
	return site.Principals[text]
}

// namesake suggests the user or role whose ARN differs from a misspelt one only in case or in the path.
// Of one kind there is at most one of that name.
func (site *Site) namesake(text string) string {
	kind, name := kindAndName(text)
	if !strings.HasSuffix(kind, ":user") && !strings.HasSuffix(kind, ":role") {
		return ""
	}
	for known := range site.Principals {
		if k, n := kindAndName(known); k == kind && strings.EqualFold(n, name) {
			return " (is " + known + " meant?)"
		}
	}
	return ""
}

// kindAndName returns the parts of an ARN before and after the path of a user or role.
func kindAndName(arn string) (kind, name string) {
	kind, _, _ = strings.Cut(arn, "/")
	return kind, arn[strings.LastIndexByte(arn, '/')+1:]
}

// elsewhereConditions warns of conditions that compare a request with an ARN of another
// partition.
func (l *linter) elsewhereConditions(s *statement, site *Site) {
	for i := range s.conditions {
		c := &s.conditions[i]
		from, foreign := len(l.warnings), 0
		for j := range c.arns {
			parts := c.arns[j].parts
			if len(parts) == 6 && parts[1].text != site.Partition && isPartition(parts[1].text) {
				l.warn(c.at, c.path(), "the ARN matches nothing: those here begin with arn:%s:, not arn:%s:", site.Partition, parts[1].text)
				foreign++
			}
		}
		if foreign == len(c.arns) && !c.negated && !c.ifExists && c.set != forAllValues {
			l.deny(s, from)
		}
	}
}
