package iam_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// hostileRequests are session policies of the largest size, and requests with values as long as
// an HTTP header may be. Each pair is designed to be as slow as possible.
func hostileRequests(tb testing.TB) map[string]func(effect string) (iam.Policies, *iam.Request) {
	const headerLimit = 60_000
	as := "b" + strings.Repeat("a", headerLimit)
	repeated := func(text string, size int) string { return strings.Repeat(text, size/len(text)) }
	list := func(text string, size int) string { return strings.TrimSuffix(repeated(`"`+text+`",`, size), ",") }
	attack := func(condition, resource string, keys ...string) func(string) (iam.Policies, *iam.Request) {
		return func(effect string) (iam.Policies, *iam.Request) {
			element := `"Resource":"*"`
			if resource != "" {
				element = `"Resource":"arn:aws:redshift:us-east-1:123456789012:dbuser:` + resource + `"`
			}
			if condition != "" {
				element += `,"Condition":` + condition
			}
			document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"` + effect + `","Action":"*",` + element + `}]}`
			if effect == "Allow" {
				document = strings.Replace(document, `{"Effect":"Allow","Action":"*","Resource":"*"},`, "", 1)
			}
			if len(document) > iam.MaxSessionPolicySize {
				tb.Fatalf("the policy has %d characters", len(document))
			}
			p, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(document))
			if err != nil {
				tb.Fatal(err)
			}
			ctx := iam.NewContext()
			for i := 0; i < len(keys); i += 2 {
				ctx.Set(keys[i], keys[i+1])
			}
			return iam.Policies{Identity: []*iam.Policy{p}}, &iam.Request{
				Principal: iam.Principal{Type: iam.UserPrincipal, ARN: defaultCaller, Account: "123456789012"},
				Action:    "redshift:GetClusterCredentials", Context: ctx,
				Resource: "arn:aws:redshift:us-east-1:123456789012:dbuser:" + as,
			}
		}
	}
	agent := func(like string, keys ...string) func(string) (iam.Policies, *iam.Request) {
		return attack(`{"StringLike":{"aws:UserAgent":[`+like+`]}}`, "", append([]string{"aws:UserAgent", as}, keys...)...)
	}
	return map[string]func(string) (iam.Policies, *iam.Request){
		"a run of question marks":      agent(`"*` + strings.Repeat("?", 1000) + `b*a"`),
		"question marks between stars": agent(`"*` + repeated("?*", 1600) + `b?a"`),
		"letters and question marks":   agent(`"*` + repeated("a?", 1000) + `b"`),
		"letters, marks and the end":   agent(`"*` + repeated("a?", 1000) + `b*a"`),
		"runs that end too late":       agent(list("*a"+strings.Repeat("?", 100)+"b*a", 1700)),
		"many short patterns":          agent(list("*a?b*a", 1700)),
		"a variable as long":           agent(list("*?${aws:Referer}?b*a", 1600), "aws:Referer", as[:headerLimit/2]),
		"a variable that differs late": agent(list("*?${aws:Referer}*a", 1600), "aws:Referer", as[:headerLimit/2]+"b"),
		"stars that keep to a segment": attack("", "*"+repeated("a*", 1000)+"?b"),
		"stars and marks":              attack("", repeated("*a?", 900)+"b"),
		"ARNs":                         attack(`{"ArnLike":{"aws:UserAgent":[`+list("arn:*:*:*:*:*a?b*a", 1600)+`]}}`, "", "aws:UserAgent", "arn:::::"+as),
		"many numbers":                 attack(`{"NumericEquals":{"a:a":1,"a:b":1,"a:c":1,"a:d":1}}`, "", "a:a", strings.Repeat("1", headerLimit), "a:b", strings.Repeat("1", headerLimit), "a:c", strings.Repeat("1", headerLimit), "a:d", strings.Repeat("1", headerLimit)),
		"a folded variable":            attack(`{"StringEqualsIgnoreCase":{"aws:UserAgent":[`+list("${aws:UserAgent}b", 1700)+`]}}`, "", "aws:UserAgent", as),
	}
}

// TestWorkIsBounded: a decision takes a limited number of steps. If they are not enough the
// request is denied, whether an Allow or a Deny is undecided.
func TestWorkIsBounded(t *testing.T) {
	for name, attack := range hostileRequests(t) {
		for _, effect := range []string{"Allow", "Deny"} {
			policies, request := attack(effect)
			// The steps of the last pattern may exceed the limit a little.
			if steps := policies.Steps(request); steps > iam.MaxWork+iam.MaxWork/8 {
				t.Errorf("%s (%s): %d steps, want at most %d", name, effect, steps, iam.MaxWork)
			}
			d := policies.Evaluate(request)
			if spent := policies.Steps(request) > iam.MaxWork; spent != (d.Layer == iam.LimitLayer) || spent && d.Effect != iam.ImplicitDeny {
				t.Errorf("%s (%s): decided %v in %v", name, effect, d.Effect, d.Layer)
			}
		}
	}
	// The patterns of the first two can be matched without looking at any character twice.
	for _, name := range []string{"a run of question marks", "question marks between stars"} {
		policies, request := hostileRequests(t)[name]("Deny")
		if steps := policies.Steps(request); steps > 20_000 {
			t.Errorf("%s: %d steps", name, steps)
		}
	}
	policies, request := hostileRequests(t)["letters and question marks"]("Deny")
	want := "User: u is not authorized to perform: a:b on resource: r because deciding it takes too many steps"
	if got := iam.DenialMessage("u", "a:b", "r", policies.Evaluate(request)); !strings.HasPrefix(got, want) {
		t.Errorf("DenialMessage = %q, want %q", got, want)
	}
}

// The hundreds of statements that a principal may have are far from the limit.
func TestWorkIsEnough(t *testing.T) {
	policies, request := largePrincipal(t)
	if steps := policies.Steps(request); steps > iam.MaxWork/100 {
		t.Errorf("200 statements take %d steps of %d", steps, iam.MaxWork)
	}
}

// BenchmarkEvaluateHostile measures the slowest decisions that a caller can cause.
func BenchmarkEvaluateHostile(b *testing.B) {
	for name, attack := range hostileRequests(b) {
		b.Run(name, func(b *testing.B) {
			policies, request := attack("Deny")
			b.ReportAllocs()
			for b.Loop() {
				policies.Evaluate(request)
			}
			b.ReportMetric(float64(policies.Steps(request)), "steps")
		})
	}
}

// TestWildcardsExhaustively compares every short pattern and text with a regular expression: in
// a condition, where a wildcard matches anything, and in a resource, where it stays within its
// segment.
func TestWildcardsExhaustively(t *testing.T) {
	texts := words("ab:", 4)
	for _, pattern := range words("a:*?", 5) {
		var like, resource strings.Builder
		for i, c := range pattern {
			switch c {
			case '*':
				like.WriteString(".*")
				if rest := strings.TrimLeft(pattern[i:], "*"); rest == "" || rest[0] == ':' {
					resource.WriteString(".*")
				} else {
					resource.WriteString("[^:]*")
				}
			case '?':
				like.WriteString(".")
				resource.WriteString("[^:]")
			default:
				like.WriteRune(c)
				resource.WriteRune(c)
			}
		}
		for _, tt := range []struct{ expression, prefix, condition string }{
			{"^" + like.String() + "$", "", `,"Condition":{"StringLike":{"a:b":` + strconv.Quote(pattern) + `}}`},
			{"^" + resource.String() + "$", "arn:aws:s3:::", ""},
		} {
			element := "*"
			if tt.prefix != "" {
				if pattern == "" {
					continue
				}
				element = tt.prefix + pattern
			}
			p, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(identity(`"Effect":"Allow","Action":"*","Resource":"`+element+`"`+tt.condition)))
			if err != nil {
				t.Fatal(err)
			}
			policies, re := iam.Policies{Identity: []*iam.Policy{p}}, regexp.MustCompile(tt.expression)
			for _, text := range texts {
				request := &iam.Request{Action: "s3:GetObject", Resource: tt.prefix + text}
				if tt.prefix == "" {
					request.Context = iam.NewContext()
					request.Context.Set("a:b", text)
				}
				if got := policies.Evaluate(request).Allowed(); got != re.MatchString(text) {
					t.Fatalf("%q matches %q: %v (%s)", tt.prefix+pattern, text, got, tt.expression)
				}
			}
		}
	}
}

// words are all the texts of an alphabet up to a length.
func words(alphabet string, length int) []string {
	all, last := []string{""}, []string{""}
	for range length {
		var next []string
		for _, w := range last {
			for _, c := range alphabet {
				next = append(next, w+string(c))
			}
		}
		all, last = append(all, next...), next
	}
	return all
}
