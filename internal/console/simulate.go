package console

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxPolicyText and maxQuestions bound the work: near misses take time for each statement and
// question.
const (
	maxPolicyText = 32 << 10
	maxQuestions  = 25
)

type simulatePage struct {
	Policy, Principal, Actions, Resources, Context string

	Asked   bool
	Refused *refusal
	Results []simulated
	Summary string // of the results
	More    bool
	Missing []string
}

type simulated struct {
	Action, Resource, Verdict, By string
	Allowed                       bool
	At                            string // where the statement is in the pasted policy
	Near                          []string
}

func (e *exchange) askSimulation() {
	e.show(http.StatusOK, "simulate", simulatePage{Actions: "redshift:GetClusterCredentials", Policy: examplePolicy})
}

const examplePolicy = `{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": "redshift:GetClusterCredentials",
      "Resource": "*"
    }
  ]
}`

// simulate decides what a policy would allow. The API decides who may ask.
func (e *exchange) simulate() {
	page := simulatePage{Policy: e.form.Get("policy"), Principal: e.text("principal"), Actions: e.form.Get("actions"), Resources: e.form.Get("resources"), Context: e.form.Get("context"), Asked: true}
	fail := func(field, message string) {
		page.Refused = &refusal{Code: "InvalidInput", Message: message, Field: field}
		e.show(http.StatusBadRequest, "simulate", page)
	}
	if len(page.Policy) > maxPolicyText {
		page.Policy = ""
		fail("policy", "The policy has more than 32 kB: use daypass policy simulate.")
		return
	}
	switch {
	case strings.TrimSpace(page.Policy) == "" && page.Principal == "":
		fail("policy", "There is nothing to simulate: paste a policy, or name a principal.")
		return
	case len(lines(page.Actions)) == 0:
		fail("actions", "There is no action: name one, such as redshift:GetClusterCredentials.")
		return
	}
	name, parameters := "SimulateCustomPolicy", url.Values{"MaxItems": {strconv.Itoa(maxQuestions)}}
	if page.Principal != "" {
		name = "SimulatePrincipalPolicy"
		parameters.Set("PolicySourceArn", page.Principal)
	}
	if text := strings.TrimSpace(page.Policy); text != "" {
		parameters.Set("PolicyInputList.member.1", text)
	}
	for i, action := range lines(page.Actions) {
		parameters.Set("ActionNames.member."+strconv.Itoa(i+1), action)
	}
	for i, resource := range lines(page.Resources) {
		parameters.Set("ResourceArns.member."+strconv.Itoa(i+1), resource)
	}
	for i, entry := range lines(page.Context) {
		key, value, ok := strings.Cut(entry, "=")
		if !ok {
			fail("context", "Line "+strconv.Itoa(i+1)+" of the context has no equals sign: write key=value.")
			return
		}
		member := "ContextEntries.member." + strconv.Itoa(i+1) + "."
		parameters.Set(member+"ContextKeyName", strings.TrimSpace(key))
		for j, v := range strings.Split(value, ",") {
			parameters.Set(member+"ContextKeyValues.member."+strconv.Itoa(j+1), strings.TrimSpace(v))
		}
	}
	out, err := e.config.API.ConsoleSimulate(e.r, OfSession(e.session), name, parameters)
	answer, ok := e.denied(err)
	if !ok {
		return
	}
	if answer != nil {
		page.Refused = refused(answer)
		if page.Refused.Field = page.Refused.field(); answer.Code == "NoSuchEntity" {
			page.Refused.Field = "principal"
		}
		page.Refused.Message = named(page.Refused.Message)
		e.show(answer.Status, "simulate", page)
		return
	}
	page.More = out.IsTruncated
	for _, r := range out.EvaluationResults {
		page.Missing = r.MissingContextValues
		one := simulated{Action: r.EvalActionName, Resource: r.EvalResourceName, Allowed: r.Decision.Allowed(), Verdict: verdict(r.Decision), By: named(statementOf(r.Decision))}
		if one.By != "" && r.Decision.Line > 0 {
			one.At = "line " + strconv.Itoa(r.Decision.Line)
		}
		for _, miss := range r.NearMisses[:min(len(r.NearMisses), 5)] {
			one.Near = append(one.Near, named(nearMiss(miss, page.Principal == "" || e.who.Details)))
		}
		page.Results = append(page.Results, one)
	}
	allowed := 0
	for _, one := range page.Results {
		if one.Allowed {
			allowed++
		}
	}
	page.Summary = strconv.Itoa(allowed) + " of " + strconv.Itoa(len(page.Results)) + " allowed."
	e.show(http.StatusOK, "simulate", page)
}

// named replaces the API's name of the policy.
func named(text string) string { return strings.ReplaceAll(text, "PolicyInputList.1", "your policy") }

// lines splits a text into lines without the empty ones.
func lines(text string) (list []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}
