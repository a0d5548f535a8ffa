package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// adviser finds changes that would make a refused check succeed. First it lists the statements
// that nearly allow the check, then changes of the call, after trying each of them. A new
// statement comes last, and only if it bypasses no requirement of the policies and lint does not
// object.
type adviser struct {
	d       *directory.Directory
	input   api.ExplainInput
	outcome api.Outcome
}

// change is a possible change of the call.
type change struct {
	flag    string // as typed on the command line
	meaning string // of the flag in a real call. Optional
	apply   func(*api.ExplainInput)
	// secures is set if policies require this for security, such as MFA.
	secures bool
}

// mostAdvice limits how many suggestions of each kind are printed for one check.
const mostAdvice = 3

func (a *adviser) advise(e *explained, index int) {
	check := a.outcome.Checks[index]
	if check.Decision.Allowed() {
		return
	}
	for _, miss := range check.NearMisses[:min(len(check.NearMisses), mostAdvice)] {
		e.NearMisses = append(e.NearMisses, describeMiss(miss))
	}
	secures := false
	changes := a.changes(check)
	for _, c := range append(changes, a.together(changes, check)...) {
		if len(e.Try) < mostAdvice && a.helps(c, check) {
			e.Try = append(e.Try, strings.TrimSuffix(c.flag+": "+c.meaning, ": "))
			secures = secures || c.secures
		}
	}
	switch {
	case check.Decision.Effect == iam.ExplicitDeny && len(e.Try) > 0:
		e.Note = "a statement denies the call as it is: no other statement can allow it while that one matches"
	case check.Decision.Effect == iam.ExplicitDeny:
		e.Note = "a statement denies it: no other statement can allow it while that one matches"
	case secures || slices.ContainsFunc(check.NearMisses, demands):
		if len(e.Try) == 0 {
			e.Note = "the policies require what this call does not have; a statement without it would weaken them"
		}
	default:
		a.add(e, check, index)
	}
}

// demands reports whether a statement requires anything besides parameters of the call, such as
// a caller, an address, a time or MFA.
func demands(miss iam.NearMiss) bool { return slices.ContainsFunc(miss.Unmet, circumstance) }

func circumstance(c iam.WrittenCondition) bool {
	return !strings.HasPrefix(strings.ToLower(c.Key), "redshift:")
}

func describeMiss(miss iam.NearMiss) string {
	name := miss.Sid
	if name == "" {
		name = "Statement[" + strconv.Itoa(miss.Index) + "]"
	}
	where := fmt.Sprintf("%s of %s, line %d", name, miss.Policy, miss.Line)
	if len(miss.Unmet) == 0 {
		return where + ", is for " + strings.Join(clipList(miss.Resources), ", ")
	}
	var but []string
	for _, u := range miss.Unmet {
		but = append(but, fmt.Sprintf("%s (%s %s)", u.Key, u.Operator, strings.Join(clipList(u.Values), ", ")))
	}
	return where + ", would allow this but for " + strings.Join(but, " and ")
}

func clipList(list []string) []string {
	if len(list) > mostAdvice {
		return append(slices.Clone(list[:mostAdvice]), "…")
	}
	return list
}

// changes returns the changes that might help, the most likely first.
func (a *adviser) changes(check api.Explanation) (list []change) {
	if !a.input.MFA {
		list = append(list, change{"--mfa", "call with the keys of get-session-token and a one-time password",
			func(in *api.ExplainInput) { in.MFA = true }, true})
	}
	if !a.input.Secure {
		list = append(list, change{"--secure-transport", "call over TLS", func(in *api.ExplainInput) { in.Secure = true }, true})
	}
	for _, address := range addresses(check.NearMisses) {
		list = append(list, change{"--source-ip " + address.String(), "call from there", func(in *api.ExplainInput) { in.Source = address }, true})
	}
	set := func(flag, parameter string, values []string) {
		for _, value := range values {
			known := slices.ContainsFunc(list, func(c change) bool { return c.flag == flag+" "+value })
			if value != "" && value != a.input.Parameters.Get(parameter) && !known {
				list = append(list, change{flag: flag + " " + value, apply: func(in *api.ExplainInput) { in.Parameters.Set(parameter, value) }})
			}
		}
	}
	set("--duration", "DurationSeconds", []string{"900"})
	set("--db-name", "DbName", append(a.named(check, "redshift:DbName", "dbname"), a.database()))
	if check.Action == "redshift:GetClusterCredentials" {
		set("--db-user", "DbUser", a.named(check, "redshift:DbUser", "dbuser"))
	}
	switch check.Action {
	case "redshift:JoinGroup":
		group := check.Resource[strings.LastIndexByte(check.Resource, '/')+1:]
		list = append(list, change{flag: "without --groups " + group, apply: func(in *api.ExplainInput) { leaveOut(in.Parameters, group) }})
	case "redshift:CreateClusterUser":
		list = append(list, change{flag: "without --auto-create", meaning: "if the database user exists",
			apply: func(in *api.ExplainInput) { in.Parameters.Del("AutoCreate") }})
	}
	return list
}

// together combines changes into one and leaves out those that are not needed. It returns nil
// if one change is enough, or if even all of them do not help.
func (a *adviser) together(changes []change, check api.Explanation) []change {
	var parts []change
	for _, c := range changes {
		flag, _, _ := strings.Cut(c.flag, " ")
		if !slices.ContainsFunc(parts, func(p change) bool { return strings.HasPrefix(p.flag, flag) }) {
			parts = append(parts, c)
		}
		if a.helps(c, check) {
			return nil
		}
	}
	if all := joined(parts); !a.helps(all, check) {
		return nil
	}
	for i := 0; i < len(parts); {
		if fewer := slices.Delete(slices.Clone(parts), i, i+1); a.helps(joined(fewer), check) {
			parts = fewer
		} else {
			i++
		}
	}
	return []change{joined(parts)}
}

func joined(parts []change) change {
	var flags, meanings []string
	secures := false
	for _, c := range parts {
		flags, secures = append(flags, c.flag), secures || c.secures
		if c.meaning != "" {
			meanings = append(meanings, c.meaning)
		}
	}
	return change{strings.Join(flags, " "), strings.Join(meanings, ", "), func(in *api.ExplainInput) {
		for _, c := range parts {
			c.apply(in)
		}
	}, secures}
}

// leaveOut removes a group from a call.
func leaveOut(parameters url.Values, group string) {
	var kept []string
	for i := 1; parameters.Has("DbGroups.DbGroup." + strconv.Itoa(i)); i++ {
		name := "DbGroups.DbGroup." + strconv.Itoa(i)
		if g := parameters.Get(name); g != group {
			kept = append(kept, g)
		}
		parameters.Del(name)
	}
	for i, g := range kept {
		parameters.Set("DbGroups.DbGroup."+strconv.Itoa(i+1), g)
	}
}

// named returns names that appear in near misses: the values of a condition key, and the last
// part of resources of a kind.
func (a *adviser) named(check api.Explanation, key, kind string) (names []string) {
	add := func(name string) {
		name = strings.ReplaceAll(name, "${aws:username}", a.input.Principal[strings.LastIndexByte(a.input.Principal, '/')+1:])
		if !strings.ContainsAny(name, "*?$") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, miss := range check.NearMisses {
		for _, u := range miss.Unmet {
			if strings.EqualFold(u.Key, key) {
				for _, value := range u.Values {
					add(value)
				}
			}
		}
		for _, resource := range miss.Resources {
			if _, name, found := strings.Cut(resource, ":"+kind+":"); found {
				_, name, _ = strings.Cut(name, "/")
				add(name)
			}
		}
	}
	return names
}

// addresses returns examples of the addresses that near misses require.
func addresses(misses []iam.NearMiss) (list []netip.Addr) {
	for _, miss := range misses {
		for _, u := range miss.Unmet {
			if !strings.EqualFold(u.Key, "aws:SourceIp") {
				continue
			}
			for _, value := range u.Values {
				if prefix, err := netip.ParsePrefix(value); err == nil {
					list = append(list, prefix.Addr())
				} else if address, err := netip.ParseAddr(value); err == nil {
					list = append(list, address)
				}
			}
		}
	}
	return list
}

// database returns the default database of the call's cluster.
func (a *adviser) database() string {
	if cluster, ok := a.d.Cluster(a.input.Parameters.Get("ClusterIdentifier")); ok {
		return cluster.Database
	}
	return ""
}

// try explains the call with a change.
func (a *adviser) try(c change) (api.Outcome, bool) {
	in := a.input
	in.Parameters = url.Values(maps.Clone(map[string][]string(a.input.Parameters)))
	c.apply(&in)
	outcome, err := api.Explain(a.d, in)
	return outcome, err == nil && (outcome.Refusal == nil || a.outcome.Refusal != nil)
}

// helps reports whether a change makes a check succeed without making another one fail.
func (a *adviser) helps(c change, check api.Explanation) bool {
	outcome, ok := a.try(c)
	if !ok || len(outcome.Checks) == 0 {
		return false
	}
	for _, other := range outcome.Checks {
		if !other.Decision.Allowed() && (sameQuestion(other, check) || !a.refused(other)) {
			return false
		}
	}
	return true
}

// refused reports whether the unchanged call has a refused check for the same question.
func (a *adviser) refused(check api.Explanation) bool {
	return slices.ContainsFunc(a.outcome.Checks, func(e api.Explanation) bool { return sameQuestion(e, check) && !e.Decision.Allowed() })
}

// sameQuestion reports whether two checks ask the same question, in calls that may differ in one
// name.
func sameQuestion(x, y api.Explanation) bool {
	kind := func(resource string) string {
		arn, err := iam.ParseARN(resource)
		if err != nil {
			return resource
		}
		return arn.Resource[:max(0, strings.IndexByte(arn.Resource, ':'))]
	}
	return x.Action == y.Action && kind(x.Resource) == kind(y.Resource) && (x.Action != "redshift:JoinGroup" || x.Resource == y.Resource)
}

// add adds the statement that allows this check of this call and nothing more. If the
// call names no database, the statement is for the cluster's default one, since
// otherwise it would allow all databases.
func (a *adviser) add(e *explained, check api.Explanation, index int) {
	before, named := a.input, ""
	_, given := a.input.Parameters["DbName"]
	if !given && strings.HasPrefix(check.Action, "redshift:GetClusterCredentials") {
		const trap = "name the database with --db-name: a statement that names none opens all of them"
		if named = a.database(); named == "" {
			e.Note = trap
			return
		}
		outcome, ok := a.try(change{apply: func(in *api.ExplainInput) { in.Parameters.Set("DbName", named) }})
		if !ok || index >= len(outcome.Checks) {
			e.Note = trap
			return
		}
		if check = outcome.Checks[index]; check.Decision.Allowed() {
			return // the caller only has to name the database
		}
		before.Parameters = url.Values(maps.Clone(map[string][]string(a.input.Parameters)))
		before.Parameters.Set("DbName", named)
	}
	statement := statementFor(check)
	policy, err := iam.ParsePolicy(iam.IdentityPolicy, "the statement to add", []byte(`{"Version":"2012-10-17","Statement":`+string(statement)+`}`))
	if err != nil {
		e.Note = "no statement can allow it: " + err.Error()
		return
	}
	if objection := a.objection(policy); objection != "" {
		e.Note = "a statement for this alone would not do what it says: " + objection
		return
	}
	e.Add = statement
	before.Extra = []*iam.Policy{policy}
	again, err := api.Explain(a.d, before)
	if err != nil || index >= len(again.Checks) {
		return
	}
	e.Note = "in an identity-based policy of the principal this is enough"
	if decision := again.Checks[index].Decision; !decision.Allowed() {
		e.Note = "in an identity-based policy this is not enough: the " + decision.Layer.String() + " has to allow it too"
	}
	if named != "" {
		e.Note += ", with --db-name " + named + "; a call that names no database opens all of them"
	}
}

// objection returns lint's warning about the new statement, alone or together with the
// principal's policies. Warnings that lint has without the statement do not count.
func (a *adviser) objection(policy *iam.Policy) string {
	site := iam.Site{Partition: a.d.Partition, Region: a.d.Region, Account: a.d.Account}
	for _, w := range append(policy.Warnings(), policy.Elsewhere(site)...) {
		return w.Reason
	}
	with := *a.outcome.Policies
	before := with.Warnings()
	with.Identity = append(slices.Clone(with.Identity), policy)
	for _, w := range with.Warnings() {
		if !slices.Contains(before, w) {
			return w.Reason
		}
	}
	return ""
}

// statementFor returns a statement that allows exactly one check: this action, this
// resource, and this call's values of the action's own condition keys. It repeats the
// conditions of the nearest statement on the circumstances of the call.
func statementFor(check api.Explanation) json.RawMessage {
	equal, atMost := map[string]string{}, map[string]string{}
	if name, given := check.Conditions["redshift:DbName"]; given {
		equal["redshift:DbName"] = name
	}
	if seconds, given := check.Conditions["redshift:DurationSeconds"]; given {
		atMost["redshift:DurationSeconds"] = seconds
	}
	var more []iam.WrittenCondition
	if len(check.NearMisses) > 0 {
		more = slices.DeleteFunc(slices.Clone(check.NearMisses[0].Met), func(c iam.WrittenCondition) bool { return !circumstance(c) })
	}
	return json.RawMessage(iam.AllowStatement(check.Action, check.Resource, equal, atMost, more))
}
