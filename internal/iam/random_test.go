package iam_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

var randomCases = flag.Int("random", 3000, "how many random policies to compare the evaluators on")

// TestAgainstNaiveEvaluator compares the two evaluators on random policies and
// requests. The words are few and alike, so that most patterns match something.
func TestAgainstNaiveEvaluator(t *testing.T) {
	n := *randomCases
	outcomes := make(map[string]int)
	for seed := range n {
		g := generator{rand.New(rand.NewPCG(uint64(seed), 0))}
		docs := g.documents()
		row := corpusRow{docs: docs, action: g.pick(actionWords...), resource: g.pick(resourceWords...), caller: g.pick(callerWords...), context: g.context()}
		if strings.HasPrefix(row.action, "sts") || docs.trust != "" {
			row.resource = g.pick("arn:aws:iam::123456789012:role/etl", "arn:aws:iam::210987654321:role/etl")
		}
		policies := docs.compile(t)
		request := row.request(t)
		got := policies.Evaluate(request)
		want := naiveEvaluate(docs, request, row.context)
		if got.Effect.String() != want {
			t.Fatalf("seed %d: Evaluate = %+v, the naive evaluator says %s\npolicies %s\nrequest %+v\ncontext %+v",
				seed, got, want, describe(docs), request, row.context)
		}
		checkTrace(t, &policies, request, got)
		outcomes[want]++
	}
	for _, outcome := range []string{"allowed", "explicitDeny", "implicitDeny"} {
		if outcomes[outcome] < n/20 {
			t.Errorf("only %d of %d requests were decided %s: the generator is lopsided", outcomes[outcome], n, outcome)
		}
	}
}

// checkTrace compares the trace with the decision: the deciding statement is in it and matches,
// and if nothing is denied no Deny matches.
func checkTrace(t *testing.T, policies *iam.Policies, request *iam.Request, d iam.Decision) {
	t.Helper()
	found, denied := d.Index < 0, false
	for _, m := range policies.Trace(request) {
		denied = denied || m.Matched && !m.Allow
		if m.Policy == d.Policy && m.Index == d.Index {
			found = found || m.Matched && m.Allow == d.Allowed() && m.Layer == d.Layer
		}
		if m.Matched == (m.Mismatch != "") {
			t.Fatalf("Trace: matched %v with mismatch %q", m.Matched, m.Mismatch)
		}
	}
	if !found || denied != (d.Effect == iam.ExplicitDeny) {
		t.Fatalf("Trace does not bear out %+v", d)
	}
}

func describe(d documents) string {
	return fmt.Sprintf("identity %s\nsession %v %s\nboundary %s\ntrust %s", d.identity, d.hasSession, d.session, d.boundary, d.trust)
}

var (
	actionWords   = []string{"redshift:GetClusterCredentials", "redshift:GetClusterCredentialsWithIAM", "redshift:JoinGroup", "redshift:joingroup", "sts:AssumeRole", "sts:AssumeRoleWithWebIdentity"}
	actionGlobs   = []string{"*", "redshift:*", "redshift:Get*", "redshift:*Group", "redshift:J?inGroup", "sts:Assume*", "redshift:GetClusterCredentials", "REDSHIFT:joingroup"}
	providers     = []string{"arn:aws:iam::123456789012:oidc-provider/token.example.com", "token.example.com", "other.example.com"}
	trustGlobs    = []string{"sts:AssumeRole", "sts:*", "sts:AssumeRoleWith*", "STS:AssumeRole?ithWebIdentity"}
	resourceWords = []string{
		"arn:aws:redshift:us-east-1:123456789012:dbuser:c1/ana", "arn:aws:redshift:us-east-1:123456789012:dbuser:c1/IAM:ana",
		"arn:aws:redshift:us-east-1:123456789012:dbname:c1/dev", "arn:aws:redshift:us-west-1:123456789012:dbgroup:c2/ana",
		"arn:aws:iam::123456789012:role/etl", "arn:aws:s3:::bucket/a/b:c", "*",
	}
	resourceGlobs = []string{
		"*", "arn:aws:redshift:*", "arn:aws:redshift:us-*-1:*:db*:c1/ana", "arn:aws:redshift:*:*:dbuser:c?/*", "arn:aws:redshift:*:*:dbuser:*/ana",
		"arn:aws:redshift:us-east-1:123456789012:*", "arn:aws:redshift:*:dbname:c1/d*v", "arn:aws:redshift:*:123456789012:dbuser:c1/${aws:username}",
		"arn:aws:redshift:*:*:*/${aws:username, 'ana'}", "arn:aws:redshift:*:*:dbuser:*${*}/a?a", "arn:aws:iam::*:role/${aws:PrincipalTag/team}*", "arn:aws:iam::123456789012:*",
		"arn:aws:redshift:${aws:RequestedRegion}:123456789012:*", "arn:aws:s3:::*b*c", "arn:aws:s3:::*/?", "arn:*:redshift:*:*:dbgroup:**a", "arn:aws:redshift:*:*:dbuser:*:ana",
	}
	callerWords = []string{
		"arn:aws:iam::123456789012:user/ana", "arn:aws:iam::210987654321:user/eve", "arn:aws:sts::123456789012:assumed-role/web/s1",
		"arn:aws:iam::123456789012:oidc-provider/token.example.com", "arn:aws:iam::123456789012:root", "ecs.amazonaws.com",
	}
	awsPrincipals = []string{
		"*", "123456789012", "arn:aws:iam::210987654321:root", "arn:aws:iam::123456789012:user/ana", "arn:aws:iam::210987654321:user/eve",
		"arn:aws:iam::123456789012:role/web", "arn:aws:sts::123456789012:assumed-role/web/s1",
	}
)

// keyWords are the condition keys and the values they are given.
var keyWords = map[string][]string{
	"aws:username":             {"ana", "Ana", "bo", "", "a*", "${aws:userid}"},
	"aws:userid":               {"AIDAEXAMPLE", "AROAEXAMPLE:ana"},
	"aws:PrincipalTag/team":    {"etl", "data", "*", "e"},
	"redshift:DurationSeconds": {"900", "900.0", "1000", "-5", "9e2", "abc", ""},
	"aws:CurrentTime":          {"2026-01-02T00:00:00Z", "2026-01-02", "1767312000", "2026-01-02T05:30:00+05:30", "2025", "later"},
	"aws:SourceIp":             {"203.0.113.7", "203.0.114.1", "2001:db8::1", "::ffff:203.0.113.9", "x"},
	"aws:SecureTransport":      {"true", "false", "TRUE", "perhaps"},
	"aws:PrincipalArn":         {"arn:aws:iam::123456789012:role/etl", "arn:aws:iam::123456789012:user/ana", "arn:aws:sts::123456789012:a:b", "etl"},
	"daypass:blob":             {"AAE=", "AAEC", "AAF="},
}

// operatorWords are the operators with values to compare with.
var operatorWords = map[string][]string{
	"StringEquals":              {`"ana"`, `"${aws:username}"`, `"etl"`, `"900"`, `900`, `"${aws:PrincipalTag/team, 'data'}"`, `"a${*}"`},
	"StringNotEquals":           {`"ana"`, `"${aws:username}"`, `"Ana"`, `"AIDAEXAMPLE"`, `true`},
	"StringEqualsIgnoreCase":    {`"ANA"`, `"aroaexample:${aws:username}"`, `"TRUE"`},
	"StringNotEqualsIgnoreCase": {`"aNa"`, `"ETL"`},
	"StringLike":                {`"a*"`, `"*a"`, `"?n?"`, `"*"`, `"AROA*:${aws:username}"`, `"*e*t*l*"`, `""`},
	"StringNotLike":             {`"A*"`, `"?"`, `"${aws:PrincipalTag/team}*"`},
	"NumericEquals":             {`900`, `"900.00"`, `"-5"`},
	"NumericNotEquals":          {`"900"`, `1e3`},
	"NumericLessThan":           {`"1000"`, `900`},
	"NumericLessThanEquals":     {`"900"`},
	"NumericGreaterThan":        {`"899.999"`, `-6`},
	"NumericGreaterThanEquals":  {`"1000"`},
	"DateEquals":                {`"2026-01-02"`, `1767312000`},
	"DateNotEquals":             {`"2026-01-02T00:00Z"`},
	"DateLessThan":              {`"2026"`, `"2026-01-03"`},
	"DateLessThanEquals":        {`"2026-01-02T00:00:00.000Z"`},
	"DateGreaterThan":           {`"2026-01"`},
	"DateGreaterThanEquals":     {`"1767312000"`},
	"Bool":                      {`"true"`, `false`, `"False"`},
	"BinaryEquals":              {`"AAE="`, `"AAEC"`},
	"IpAddress":                 {`"203.0.113.0/24"`, `"2001:db8::/32"`, `"203.0.113.9"`, `"0.0.0.0/0"`},
	"NotIpAddress":              {`"203.0.113.0/24"`, `"::/0"`},
	"ArnEquals":                 {`"arn:aws:iam::123456789012:role/*"`, `"arn:aws:*::1234567890??:user/ana"`, `"*"`, `"arn:aws:iam::*"`},
	"ArnLike":                   {`"arn:aws:iam::*:*/${aws:PrincipalTag/team}"`, `"arn:aws:*:*:*:a:*"`, `"${aws:PrincipalArn}"`, `"arn:*/${aws:PrincipalTag/team}"`},
	"ArnNotEquals":              {`"arn:aws:iam::*:user/*"`, `"arn:aws:?am:*"`},
	"ArnNotLike":                {`"arn:*:iam::123456789012:role/e?l"`},
	"Null":                      {`"true"`, `"false"`, `true`},
}

type generator struct{ *rand.Rand }

func (g generator) pick(words ...string) string { return words[g.IntN(len(words))] }

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g generator) key() string {
	keys := []string{"aws:username", "aws:userid", "aws:PrincipalTag/team", "redshift:DurationSeconds", "aws:CurrentTime",
		"aws:SourceIp", "aws:SecureTransport", "aws:PrincipalArn", "daypass:blob"}
	return g.pick(keys...)
}

func (g generator) documents() (d documents) {
	for range 1 + g.IntN(2) {
		d.identity = append(d.identity, g.document(false))
	}
	if g.chance(25) {
		d.boundary = g.document(false)
	}
	if g.chance(25) {
		d.hasSession = true
		for range g.IntN(3) {
			d.session = append(d.session, g.document(false))
		}
	}
	if g.chance(35) {
		d.trust = g.document(true)
	}
	return d
}

func (g generator) document(trust bool) string {
	var statements []string
	for range 1 + g.IntN(3) {
		statements = append(statements, g.statement(trust))
	}
	version := g.pick(`"Version":"2012-10-17",`, `"Version":"2012-10-17",`, `"Version":"2008-10-17",`, ``)
	list := "[" + strings.Join(statements, ",") + "]"
	if len(statements) == 1 && g.chance(50) {
		list = statements[0]
	}
	return "{" + version + `"Statement":` + list + "}"
}

func (g generator) statement(trust bool) string {
	effect := "Allow"
	if g.chance(20) {
		effect = "Deny"
	}
	parts := []string{`"Effect":"` + effect + `"`}
	not := func(name string) string {
		if g.chance(15) {
			return "Not" + name
		}
		return name
	}
	if trust {
		parts = append(parts, quote(not("Action"))+":"+g.list(trustGlobs), quote(not("Principal"))+":"+g.principal())
	} else {
		parts = append(parts, quote(not("Action"))+":"+g.list(actionGlobs), quote(not("Resource"))+":"+g.list(resourceGlobs))
	}
	if g.chance(60) {
		parts = append(parts, `"Condition":`+g.condition())
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (g generator) principal() string {
	if g.chance(15) {
		return `"*"`
	}
	parts := []string{`"AWS":` + g.list(awsPrincipals)}
	if g.chance(30) {
		parts = append(parts, `"Federated":`+g.list(providers))
	}
	if g.chance(30) {
		parts = append(parts, `"Service":["ecs.amazonaws.com"]`)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// list is one word, or several without repetition.
func (g generator) list(words []string) string {
	if g.chance(50) {
		return quote(g.pick(words...))
	}
	var quoted []string
	for range 1 + g.IntN(3) {
		quoted = append(quoted, quote(g.pick(words...)))
	}
	return "[" + strings.Join(quoted, ",") + "]"
}

func (g generator) condition() string {
	operators := make(map[string]string)
	for range 1 + g.IntN(2) {
		base := g.operator()
		values := operatorWords[base]
		operator := base
		if base != "Null" && g.chance(25) {
			operator += "IfExists"
		}
		if g.chance(25) {
			operator = g.pick("ForAllValues:", "ForAnyValue:") + operator
		}
		list := g.pick(values...)
		if g.chance(40) {
			list = "[" + list + "," + g.pick(values...) + "]"
		} else if g.chance(5) {
			list = "[]"
		}
		operators[operator] = "{" + quote(g.key()) + ":" + list + "}"
	}
	var parts []string
	for operator, keys := range operators {
		parts = append(parts, quote(operator)+":"+keys)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (g generator) operator() string {
	return g.pick(strings.Fields(`StringEquals StringNotEquals StringEqualsIgnoreCase StringNotEqualsIgnoreCase StringLike StringNotLike
		NumericEquals NumericNotEquals NumericLessThan NumericLessThanEquals NumericGreaterThan NumericGreaterThanEquals
		DateEquals DateNotEquals DateLessThan DateLessThanEquals DateGreaterThan DateGreaterThanEquals
		Bool BinaryEquals IpAddress NotIpAddress ArnEquals ArnLike ArnNotEquals ArnNotLike Null`)...)
}

func (g generator) context() []contextEntry {
	var entries []contextEntry
	seen := make(map[string]bool)
	for range 1 + g.IntN(8) {
		key := g.key()
		if seen[key] {
			continue
		}
		seen[key] = true
		entry := contextEntry{key: key, values: []string{g.pick(keyWords[key]...)}}
		if g.chance(20) {
			entry.list = true
			for range g.IntN(3) {
				entry.values = append(entry.values, g.pick(keyWords[key]...))
			}
			if g.chance(10) {
				entry.values = nil
			}
		}
		if g.chance(20) {
			entry.key = strings.ToUpper(key)
		}
		entries = append(entries, entry)
	}
	return entries
}

func quote(s string) string {
	q, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(q)
}
