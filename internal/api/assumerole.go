package api

import (
	"net/http"
	"strings"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

// Durations of role sessions, in seconds.
const (
	minSession     = 900
	maxSession     = 43200
	defaultSession = 3600
	// maxChained is the limit for a role that is assumed from another role's session.
	maxChained = 3600
)

// assumeRole exchanges the caller's identity for a session of an IAM role: STS API
// Reference, AssumeRole.
type assumeRole struct {
	assumption
	externalID optional
	inherited  []sts.Tag
}

func readAssumeRole(r *reader) *assumeRole {
	p := &assumeRole{assumption: readAssumption(r)}
	p.tags, p.transitive = r.tags()
	p.externalID.value, p.externalID.given = r.constrained("ExternalId", externalID)
	p.sourceIdentity, _ = r.constrained("SourceIdentity", sessionName)
	if strings.HasPrefix(strings.ToLower(p.sourceIdentity), "aws:") {
		r.fail(errValidation("SourceIdentity must not begin with aws:"))
	}
	if contexts, err := r.query.Params.Structs("ProvidedContexts", "member"); err != nil || len(contexts) > 0 {
		r.fail(errValidation("ProvidedContexts are not supported"))
	}
	p.inherited = r.caller.Session.Inherited()
	r.readMFA()
	return p
}

// needs returns the checks of sts:AssumeRole, and those of sts:TagSession and sts:SetSourceIdentity
// for a session with tags or a source identity. The trust policy has to allow each. Tags and a
// source identity that are inherited from the caller's session count too.
func (p *assumeRole) needs(c *call) []check {
	sourceIdentity := p.sourceIdentity
	if s := c.caller.Session; s != nil && s.SourceIdentity != "" {
		sourceIdentity = s.SourceIdentity
	}
	fill := func(k *iam.Context) {
		p.fill(k)
		if p.externalID.given {
			k.Set("sts:ExternalId", p.externalID.value)
		}
		if sourceIdentity != "" {
			k.Set("sts:SourceIdentity", sourceIdentity)
		}
	}
	return p.checks(c, "sts:AssumeRole", fill, len(p.tags)+len(p.inherited) > 0, sourceIdentity != "")
}

func (p *assumeRole) act(c *call) (awsquery.Result, error) {
	before := c.caller.Session
	if before != nil && before.Kind == sts.RoleSession && p.seconds > maxChained {
		return nil, errValidation("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	tags := p.inherited
	transitive := make([]string, 0, len(p.inherited)+len(p.transitive))
	inherited := make(map[string]bool, len(p.inherited))
	for _, t := range p.inherited {
		transitive = append(transitive, t.Key)
		inherited[iam.FoldKey(t.Key)] = true
	}
	for _, t := range p.tags {
		if inherited[iam.FoldKey(t.Key)] {
			return nil, &awsquery.Error{Code: "InvalidParameterValue", Status: http.StatusBadRequest, Message: "One of the " +
				"specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session."}
		}
	}
	p.tags, p.transitive = append(tags, p.tags...), append(transitive, p.transitive...)
	if before != nil && before.SourceIdentity != "" {
		if p.sourceIdentity != "" && p.sourceIdentity != before.SourceIdentity {
			return nil, errAccessDenied("The source identity is already set for this assume role session")
		}
		p.sourceIdentity = before.SourceIdentity
	}
	return c.assume(&p.assumption, c.origin(), nil)
}
