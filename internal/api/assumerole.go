package api

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

// Durations of role sessions, in seconds.
const (
	minSession     = 900
	maxSession     = 43200
	defaultSession = 3600
	// maxChained is for a role that is assumed with the credentials of a role.
	maxChained = 3600
)

// assumption is what both ways of assuming an IAM role have in common.
type assumption struct {
	arn            string
	role           *directory.Role // nil: there is none
	session        string
	seconds        int
	policy         string
	policyARNs     []string
	tags           []sts.Tag
	transitive     []string
	sourceIdentity string
}

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
	// Names are unique, whatever the path; the ARN has to be the whole one.
	name := arn.Resource[strings.LastIndexByte(arn.Resource, '/')+1:]
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

// needs is the action, and the two that go with tags and a source identity: the
// trust policy has to allow each. What is inherited from the session before counts.
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

// checks are an assumption's. To a caller who is not allowed, a role that does not
// exist looks like one that does not trust them.
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

// assume issues the session. The caller is allowed to have it.
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

// issue makes a session's temporary access key.
func (c *call) issue(s *sts.Session, seconds int) (sts.Credentials, error) {
	credentials, err := sts.Issue(c.keyring, c.now, time.Duration(seconds)*time.Second, s)
	if errors.Is(err, sts.ErrPackedTooLarge) {
		return credentials, &awsquery.Error{Code: "PackedPolicyTooLarge", Status: http.StatusBadRequest, Message: err.Error()}
	}
	c.response = append(c.response, audit.Object("credentials",
		audit.String("accessKeyId", credentials.AccessKeyID),
		audit.Hidden("sessionToken"),
		audit.Time("expiration", credentials.Expiration)))
	return credentials, err
}

// assumedRole is AssumeRoleResult, and AssumeRoleWithWebIdentityResult with what
// the token said.
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

// encodeCredentials reveals the secret. It runs after the audit line is written.
func encodeCredentials(e *awsquery.Encoder, c sts.Credentials) {
	e.Element("Credentials", func() {
		e.String("AccessKeyId", c.AccessKeyID)
		e.String("SecretAccessKey", c.Secret.Reveal())
		e.String("SessionToken", c.Token.Reveal())
		e.Time("Expiration", c.Expiration)
	})
}
