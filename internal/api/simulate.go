package api

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/iam"
)

// maxSimulated is how many decisions one call may ask for. It is ours.
const maxSimulated = 10_000

// simulation asks what policies would decide: IAM API Reference,
// SimulateCustomPolicy and SimulatePrincipalPolicy. Beyond AWS's, ResourcePolicy may
// be the trust policy of an IAM role, CallerArn a role session or an identity
// provider, and SessionPolicyInputList has session policies (docs/divergences.md).
type simulation struct {
	permission string // the IAM action that allows asking
	source     string // PolicySourceArn, or "*"
	missing    bool   // there is no such source
	sourceType string // user or role

	policies  iam.Policies
	principal iam.Principal
	actions   []string
	resources []string
	context   *iam.Context
	bad       error // a document or an entry that makes no sense

	maxItems, from int
}

func readSimulateCustom(r *reader) *simulation {
	p := &simulation{permission: "iam:SimulateCustomPolicy", source: "*", context: iam.NewContext()}
	p.read(r, true)
	return p
}

// readSimulatePrincipal begins with the policies of an IAM user or role of the
// directory, and with the condition keys that it always has.
func readSimulatePrincipal(r *reader) *simulation {
	p := &simulation{permission: "iam:SimulatePrincipalPolicy", context: iam.NewContext()}
	p.source = r.needed("PolicySourceArn", arnText)
	name := p.source[strings.LastIndexByte(p.source, '/')+1:]
	keys := Caller{}
	if u, ok := r.directory.User(name); ok && u.ARN == p.source {
		keys = *ofUser(r.directory, u, "")
		p.sourceType = "user"
	} else if role, ok := r.directory.Role(name); ok && role.ARN == p.source {
		p.sourceType = "role"
		keys = Caller{PrincipalARN: role.ARN, Tags: role.Tags, Policies: &role.Policies,
			Principal: iam.Principal{Type: iam.RoleSessionPrincipal, ARN: role.ARN, RoleARN: role.ARN, Account: r.directory.Account}}
	} else {
		p.missing = true
		p.read(r, false)
		return p
	}
	p.policies, p.principal = *keys.Policies, keys.Principal
	p.policies.Identity = slices.Clone(p.policies.Identity)
	keys.fill(p.context)
	p.read(r, false)
	return p
}

// needs is the permission to ask at all, about this source.
func (p *simulation) needs(*call) []check {
	return []check{{action: p.permission, resource: p.source}}
}

// read takes the parameters that both calls have. What is wrong inside of them is
// kept for act.
func (p *simulation) read(r *reader, policiesNeeded bool) {
	policies := p.documents(r, "PolicyInputList", iam.IdentityPolicy)
	p.policies.Identity = append(p.policies.Identity, policies...)
	boundaries := p.documents(r, "PermissionsBoundaryPolicyInputList", iam.IdentityPolicy)
	if len(boundaries) > 1 {
		p.fail("PermissionsBoundaryPolicyInputList must not have more than one policy.")
	} else if len(boundaries) == 1 {
		p.policies.Boundary = boundaries[0]
	}
	if session := p.documents(r, "SessionPolicyInputList", iam.IdentityPolicy); len(session) > 0 {
		p.policies.Session = session
	}
	p.actions = r.list("ActionNames", "member", 1000)
	p.resources = r.list("ResourceArns", "member", 1000)
	if len(p.resources) == 0 {
		p.resources = []string{"*"}
	}
	switch {
	case policiesNeeded && len(policies) == 0 && p.bad == nil:
		r.fail(errConstraint("policyInputList", "not be null"))
	case len(p.actions) == 0:
		r.fail(errConstraint("actionNames", "not be null"))
	case len(p.actions)*len(p.resources) > maxSimulated:
		p.fail("There must not be more than " + strconv.Itoa(maxSimulated) + " combinations of actions and resources.")
	}
	caller := r.text("CallerArn").value
	r.text("ResourceOwner")
	if document, given, err := r.query.Params.String("ResourcePolicy"); err != nil {
		r.fail(err)
	} else if given && document != "" {
		r.request = append(r.request, audit.String("resourcePolicy", document))
		p.policies.Resource = p.parse("ResourcePolicy", iam.TrustPolicy, document)
		if caller == "" && p.sourceType == "" {
			p.fail("CallerArn must be there when ResourcePolicy is.")
		}
	}
	if caller != "" {
		var err error
		if p.principal, err = iam.PrincipalFromARN(caller); err != nil {
			p.fail("CallerArn is " + err.Error() + ".")
		}
	}
	p.entries(r)
	p.page(r)
}

// fail keeps the first error.
func (p *simulation) fail(message string) {
	if p.bad == nil {
		p.bad = &awsquery.Error{Code: "InvalidInput", Status: http.StatusBadRequest, Message: message}
	}
}

func (p *simulation) parse(name string, kind iam.Kind, document string) *iam.Policy {
	policy, err := iam.ParsePolicy(kind, name, []byte(document))
	if err != nil {
		p.fail(err.Error())
		return nil
	}
	return policy
}

func (p *simulation) documents(r *reader, name string, kind iam.Kind) []*iam.Policy {
	var policies []*iam.Policy
	for i, document := range r.list(name, "member", 100) {
		if policy := p.parse(name+"."+strconv.Itoa(i+1), kind, document); policy != nil {
			policies = append(policies, policy)
		}
	}
	return policies
}

// entries reads the condition keys, which are used exactly as given.
func (p *simulation) entries(r *reader) {
	list, err := r.query.Params.Structs("ContextEntries", "member")
	if err != nil {
		r.fail(err)
		return
	}
	for _, entry := range list {
		name, _, err := entry.String("ContextKeyName")
		if err != nil {
			r.fail(err)
			return
		}
		kind, _, err := entry.String("ContextKeyType")
		if err != nil {
			r.fail(err)
			return
		}
		values, _, err := entry.List("ContextKeyValues", "member")
		if err != nil {
			r.fail(err)
			return
		}
		switch kind {
		case "string", "numeric", "boolean", "ip", "binary", "date":
			if len(values) == 1 {
				p.context.Set(name, values[0])
			} else if len(values) > 1 {
				p.fail("ContextEntries: " + name + " has more than one value and is not a list.")
			}
		case "stringList", "numericList", "booleanList", "ipList", "binaryList", "dateList":
			p.context.SetList(name, values)
		default:
			p.fail("ContextEntries: " + name + " has an unknown ContextKeyType.")
		}
		if name == "" {
			p.fail("ContextEntries must have a ContextKeyName.")
		}
	}
}

func (p *simulation) page(r *reader) {
	n, given, err := r.query.Params.Int("MaxItems")
	switch {
	case err != nil:
		r.fail(err)
	case !given:
		n = 100
	case n < 1 || n > 1000:
		r.fail(errConstraint("maxItems", "be between 1 and 1000"))
	}
	p.maxItems = n
	if marker := r.text("Marker").value; marker != "" {
		text, err := base64.RawURLEncoding.DecodeString(marker)
		if err == nil {
			p.from, err = strconv.Atoi(string(text))
		}
		if err != nil || p.from < 0 {
			p.fail("Marker must be one that an earlier call returned.")
		}
	}
}

func (p *simulation) act(c *call) (awsquery.Result, error) {
	if p.missing {
		return nil, &awsquery.Error{Code: "NoSuchEntity", Status: http.StatusNotFound,
			Message: "The user or role with ARN " + p.source + " cannot be found."}
	}
	if p.bad != nil {
		return nil, p.bad
	}
	var results []simulated
	total := len(p.actions) * len(p.resources)
	to := min(total, p.from+p.maxItems)
	for i := p.from; i < to; i++ {
		results = append(results, p.simulate(p.actions[i/len(p.resources)], p.resources[i%len(p.resources)]))
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) {
		awsquery.List(e, "EvaluationResults", "member", results, p.encode)
		e.Bool("IsTruncated", to < total)
		if to < total {
			e.String("Marker", base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(to))))
		}
	}), nil
}

// simulated is one EvaluationResult.
type simulated struct {
	action, resource  string
	decision          iam.Decision
	matched           []iam.StatementMatch
	missing           []string
	withinBoundary    bool
	hasBoundaryDetail bool
}

func (p *simulation) simulate(action, resource string) simulated {
	request := &iam.Request{Principal: p.principal, Action: action, Resource: resource, Context: p.context}
	s := simulated{
		action:   action,
		resource: resource,
		decision: p.policies.Evaluate(request),
		missing:  p.policies.MissingContextKeys(p.context),
	}
	for _, m := range p.policies.Trace(request) {
		// The statements that made the decision: all that deny, or all
		// that allow.
		if m.Matched && s.decision.Effect != iam.ImplicitDeny && m.Allow == s.decision.Allowed() && m.Layer != iam.BoundaryLayer {
			s.matched = append(s.matched, m)
		}
	}
	if boundary := p.policies.Boundary; boundary != nil {
		alone := iam.Policies{Identity: []*iam.Policy{boundary}}
		s.hasBoundaryDetail, s.withinBoundary = true, alone.Evaluate(request).Allowed()
	}
	return s
}

func (p *simulation) encode(e *awsquery.Encoder, s simulated) {
	e.String("EvalActionName", s.action)
	e.String("EvalResourceName", s.resource)
	e.String("EvalDecision", s.decision.Effect.String())
	awsquery.List(e, "MatchedStatements", "member", s.matched, func(e *awsquery.Encoder, m iam.StatementMatch) {
		e.String("SourcePolicyId", m.Policy)
		e.String("SourcePolicyType", p.typeOf(m))
		position := func(name string, at iam.Position) {
			e.Element(name, func() {
				e.Int("Line", at.Line)
				e.Int("Column", at.Column)
			})
		}
		position("StartPosition", m.Start)
		position("EndPosition", m.End)
	})
	e.Strings("MissingContextValues", "member", s.missing)
	if s.hasBoundaryDetail {
		e.Element("PermissionsBoundaryDecisionDetail", func() {
			e.Bool("AllowedByPermissionsBoundary", s.withinBoundary)
		})
	}
}

// typeOf is where a statement's policy comes from, in the simulator's words.
func (p *simulation) typeOf(m iam.StatementMatch) string {
	switch {
	case m.Layer == iam.TrustLayer:
		return "resource"
	case p.sourceType != "" && !strings.HasPrefix(m.Policy, "PolicyInputList."):
		return p.sourceType
	}
	return "none"
}
