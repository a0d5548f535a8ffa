package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

// assumption has the parameters that both ways of assuming an IAM role share.
type assumption struct {
	arn            string
	role           *directory.Role // nil if the role does not exist
	session        string
	seconds        int
	policy         string
	policyARNs     []string
	tags           []sts.Tag
	transitive     []string
	sourceIdentity string
	signedIn       time.Time // see sts.Session
}

func readAssumption(r *reader) assumption {
	p := assumption{
		arn:     r.needed("RoleArn", arnText),
		session: r.needed("RoleSessionName", sessionName),
		seconds: r.seconds(minSession, maxSession, defaultSession),
	}
	p.policy, _ = r.constrained("Policy", policyText)
	p.policyARNs = r.policyARNs()
	if r.err != nil {
		return p
	}
	arn, err := iam.ParseARN(p.arn)
	if err != nil || arn.Service != "iam" || arn.Region != "" || !strings.HasPrefix(arn.Resource, "role/") {
		r.fail(errValidation(p.arn + " is invalid"))
		return p
	}
	// A role is found by its name, but the whole ARN has to match, with the path.
	name := lastPart(arn.Resource)
	if role, ok := r.directory.Role(name); ok && role.ARN == p.arn {
		p.role = role
	}
	return p
}

func (r *reader) policyARNs() []string {
	list, err := r.query.Params.Structs("PolicyArns", "member")
	if err != nil {
		r.fail(err)
	}
	if len(list) > 10 {
		r.fail(errConstraint("policyArns", "have length less than or equal to 10"))
		return nil
	}
	var arns []string
	for _, p := range list {
		arn, _, err := p.String("arn")
		if err == nil {
			err = arnText.check("policyArns.arn", arn)
		}
		if err != nil {
			r.fail(err)
		}
		arns = append(arns, arn)
	}
	if len(arns) > 0 {
		r.keepList("PolicyArns", arns, isPlainARN)
	}
	return arns
}

// checks returns the checks of an assumption. A role that does not exist is refused
// like a role that does not trust the caller.
func (p *assumption) checks(c *call, action string, fill func(*iam.Context), tagged, identified bool) []check {
	k := check{action: action, resource: p.arn, trust: c.handler.nobody, assume: true, fill: fill}
	if p.role != nil {
		k.trust, k.tags = p.role.Trust, &p.role.Tags
	}
	checks := []check{k}
	if tagged {
		k.action = "sts:TagSession"
		checks = append(checks, k)
	}
	if identified {
		k.action = "sts:SetSourceIdentity"
		checks = append(checks, k)
	}
	return checks
}

// fill sets the condition keys of an assumption.
func (p *assumption) fill(k *iam.Context) {
	k.Set("sts:RoleSessionName", p.session)
	keys := make([]string, len(p.tags))
	for i, t := range p.tags {
		keys[i] = t.Key
		k.Set("aws:RequestTag/"+t.Key, t.Value)
	}
	k.SetList("aws:TagKeys", keys)
	k.SetList("sts:TransitiveTagKeys", p.transitive)
}

// assume issues the session. The caller has been authorised.
func (c *call) assume(p *assumption, origin *sts.Origin, federated *sts.Federated) (*assumedRole, error) {
	if time.Duration(p.seconds)*time.Second > p.role.MaxSessionDuration {
		return nil, errValidation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if p.policy != "" {
		if _, err := iam.ParsePolicy(iam.IdentityPolicy, sts.SessionPolicyName, []byte(p.policy)); err != nil {
			return nil, errMalformedPolicy(err.Error())
		}
	}
	for _, arn := range p.policyARNs {
		if _, ok := c.directory.Policy(arn); !ok {
			return nil, errMalformedPolicy("The managed policy " + arn + " does not exist.")
		}
	}
	s := &sts.Session{
		Kind:           sts.RoleSession,
		Account:        c.directory.Account,
		Name:           p.role.Name,
		PrincipalID:    p.role.ID,
		SessionName:    p.session,
		SourceIdentity: p.sourceIdentity,
		Tags:           p.tags,
		Transitive:     p.transitive,
		Policy:         p.policy,
		PolicyARNs:     p.policyARNs,
		Federated:      federated,
		SignedIn:       p.signedIn,
		Origin:         origin,
	}
	credentials, err := c.issue(s, p.seconds)
	if err != nil {
		return nil, err
	}
	result := &assumedRole{
		credentials:    credentials,
		id:             p.role.ID + ":" + p.session,
		arn:            sessionARN(c.directory, p.role, p.session),
		sourceIdentity: p.sourceIdentity,
		packedSize:     credentials.PackedPolicySize,
	}
	c.response = append(c.response, audit.Object("assumedRoleUser",
		audit.String("assumedRoleId", result.id), audit.String("arn", result.arn)))
	return result, nil
}

func errMalformedPolicy(message string) error {
	return &awsquery.Error{Code: "MalformedPolicyDocument", Status: http.StatusBadRequest, Message: message}
}

// assumedRole is AssumeRoleResult and, with the claims of the token,
// AssumeRoleWithWebIdentityResult.
type assumedRole struct {
	credentials    sts.Credentials
	id, arn        string
	sourceIdentity string
	packedSize     int
	federated      *sts.Federated
	issuer         string
}

func (a *assumedRole) EncodeXML(e *awsquery.Encoder) {
	encodeCredentials(e, a.credentials)
	if a.federated != nil {
		e.String("SubjectFromWebIdentityToken", a.federated.Subject)
	}
	e.Element("AssumedRoleUser", func() {
		e.String("AssumedRoleId", a.id)
		e.String("Arn", a.arn)
	})
	if a.packedSize > 0 {
		e.Int("PackedPolicySize", a.packedSize)
	}
	if a.federated != nil {
		e.String("Provider", a.issuer)
		e.String("Audience", strings.Join(a.federated.Audience, ","))
	}
	if a.sourceIdentity != "" {
		e.String("SourceIdentity", a.sourceIdentity)
	}
}
