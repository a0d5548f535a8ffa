package api

import (
	"errors"
	"net/http"
	"strings"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/iam"
)

// simulation evaluates policies for a supposed request: IAM API Reference,
// SimulateCustomPolicy and SimulatePrincipalPolicy. It reads the parameters and writes
// the answer; iam.Simulate does the work, also for `daypass policy simulate`.
type simulation struct {
	permission string // the IAM action that the caller needs
	arn        string // PolicySourceArn, or "*"
	missing    bool   // the source does not exist
	source     *iam.PolicySource
	input      iam.SimulateInput
}

func readSimulateCustom(r *reader) *simulation {
	p := &simulation{permission: "iam:SimulateCustomPolicy", arn: "*"}
	p.read(r)
	if len(p.input.PolicyInputList) == 0 && p.input.ResourcePolicy == "" {
		r.fail(errConstraint("policyInputList", "not be null"))
	}
	return p
}

// readSimulatePrincipal starts with the policies of an IAM user or role of the
// directory, and with the condition keys that it always has.
func readSimulatePrincipal(r *reader) *simulation {
	p := &simulation{permission: "iam:SimulatePrincipalPolicy"}
	p.arn = r.needed("PolicySourceArn", arnText)
	p.read(r)
	name := p.arn[strings.LastIndexByte(p.arn, '/')+1:]
	var keys *Caller
	kind := ""
	if u, ok := r.directory.User(name); ok && u.ARN == p.arn {
		kind, keys = "user", ofUser(r.directory, u, "")
	} else if role, ok := r.directory.Role(name); ok && role.ARN == p.arn {
		kind, keys = "role", &Caller{PrincipalARN: role.ARN, Tags: role.Tags, Policies: &role.Policies,
			Principal: iam.Principal{Type: iam.RoleSessionPrincipal, ARN: role.ARN, RoleARN: role.ARN, Account: r.directory.Account}}
	} else {
		p.missing = true
		return p
	}
	p.source = &iam.PolicySource{Type: kind, Policies: keys.Policies, Principal: keys.Principal, Context: iam.NewContext()}
	keys.fill(p.source.Context)
	return p
}

// needs returns the check of the permission to simulate this source.
func (p *simulation) needs(*call) []check {
	return []check{{action: p.permission, resource: p.arn}}
}

// read reads the parameters that both actions have. It validates none of them:
// documents are parsed only for callers with the permission.
func (p *simulation) read(r *reader) {
	in := &p.input
	in.PolicyInputList = r.list("PolicyInputList", "member", 100)
	in.PermissionsBoundaryPolicyInputList = r.list("PermissionsBoundaryPolicyInputList", "member", 100)
	in.SessionPolicyInputList = r.list("SessionPolicyInputList", "member", 100)
	in.ActionNames = r.list("ActionNames", "member", 1000)
	in.ResourceArns = r.list("ResourceArns", "member", 1000)
	in.CallerArn = r.text("CallerArn").value
	in.ResourceOwner = r.text("ResourceOwner").value
	in.ResourcePolicy = r.text("ResourcePolicy").value
	in.Marker = r.text("Marker").value
	if len(in.ActionNames) == 0 {
		r.fail(errConstraint("actionNames", "not be null"))
	}
	n, given, err := r.query.Params.Int("MaxItems")
	if err != nil {
		r.fail(err)
	} else if given && (n < 1 || n > 1000) {
		r.fail(errConstraint("maxItems", "be between 1 and 1000"))
	}
	in.MaxItems = n
	in.ContextEntries, err = contextEntries(r.query.Params)
	if err != nil {
		r.fail(err)
	}
}

func contextEntries(params *awsquery.Params) ([]iam.ContextEntry, error) {
	list, err := params.Structs("ContextEntries", "member")
	if err != nil {
		return nil, err
	}
	var entries []iam.ContextEntry
	for _, p := range list {
		var e iam.ContextEntry
		if e.ContextKeyName, _, err = p.String("ContextKeyName"); err != nil {
			return nil, err
		}
		if e.ContextKeyType, _, err = p.String("ContextKeyType"); err != nil {
			return nil, err
		}
		if e.ContextKeyValues, _, err = p.List("ContextKeyValues", "member"); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (p *simulation) act(c *call) (awsquery.Result, error) {
	out, err := p.simulate(c)
	if err != nil {
		return nil, err
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) {
		awsquery.List(e, "EvaluationResults", "member", out.EvaluationResults, encodeEvaluation)
		e.Bool("IsTruncated", out.IsTruncated)
		if out.IsTruncated {
			e.String("Marker", out.Marker)
		}
	}), nil
}

func (p *simulation) simulate(c *call) (*iam.SimulateOutput, error) {
	if p.missing {
		return nil, &awsquery.Error{Code: "NoSuchEntity", Status: http.StatusNotFound,
			Message: "The user or role with ARN " + p.arn + " cannot be found."}
	}
	leave, err := c.enterSimulation()
	if err != nil {
		return nil, err
	}
	defer leave()
	out, err := iam.Simulate(c.http.Context(), &p.input, p.source)
	var bad *iam.InputError
	switch {
	case errors.As(err, &bad):
		return nil, &awsquery.Error{Code: "InvalidInput", Status: http.StatusBadRequest, Message: bad.Error()}
	case err != nil:
		return nil, errGone
	}
	return out, nil
}

func encodeEvaluation(e *awsquery.Encoder, r iam.EvaluationResult) {
	e.String("EvalActionName", r.EvalActionName)
	e.String("EvalResourceName", r.EvalResourceName)
	e.String("EvalDecision", r.EvalDecision)
	awsquery.List(e, "MatchedStatements", "member", r.MatchedStatements, func(e *awsquery.Encoder, m iam.MatchedStatement) {
		e.String("SourcePolicyId", m.SourcePolicyId)
		e.String("SourcePolicyType", m.SourcePolicyType)
		position := func(name string, at iam.Position) {
			e.Element(name, func() {
				e.Int("Line", at.Line)
				e.Int("Column", at.Column)
			})
		}
		position("StartPosition", m.StartPosition)
		position("EndPosition", m.EndPosition)
	})
	e.Strings("MissingContextValues", "member", r.MissingContextValues)
	if detail := r.PermissionsBoundaryDecisionDetail; detail != nil {
		e.Element("PermissionsBoundaryDecisionDetail", func() {
			e.Bool("AllowedByPermissionsBoundary", detail.AllowedByPermissionsBoundary)
		})
	}
}
