package api

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/iam"
)

// check is one permission that a call needs.
type check struct {
	action   string // redshift:JoinGroup
	resource string // an ARN
	// keys are the condition keys that the Service Authorization Reference lists for
	// this action. Other keys are absent, as at AWS.
	keys []conditionKey
	// tags are the resource's, for aws:ResourceTag. Optional.
	tags *map[string]string
	// trust is the trust policy of the IAM role to assume. Optional.
	trust *iam.Policy
	// every, everyKey and someKey are Every, EveryKey and SomeKey of iam.Request.
	every    bool
	everyKey string
	someKey  string
	// denyOnly: only a Deny refuses here. Another check requires the Allow.
	denyOnly bool
	// wider: the call reaches this resource without naming it. The check is recorded only
	// if it refuses.
	wider bool

	// The answer to a refused caller must not depend on what exists. told is the resource
	// as the caller named it, if that differs from resource. unknown returns the checks
	// that the call would need if the name did not exist. hint is appended to the message.
	// Optional.
	told    string
	unknown func() []check
	hint    string
	// assume leaves the reason out of the message, because it would describe the trust
	// policy.
	assume bool
	// fill sets further condition keys, the same in all checks of a call. Optional.
	fill func(*iam.Context)
}

type conditionKey struct{ name, value string }

// refuses reports whether a decision ends the call.
func (k *check) refuses(d iam.Decision) bool {
	if k.denyOnly {
		return d.Effect == iam.ExplicitDeny || d.Layer == iam.LimitLayer
	}
	return !d.Allowed()
}

// authorize decides the checks in order. The first refusal ends the call.
func (c *call) authorize(checks []check) error {
	if len(checks) == 0 {
		return nil
	}
	ask := c.ask()
	c.decisions = c.space.decisions[:0]
	for i := range checks {
		k := &checks[i]
		decision := ask.decide(k)
		refused := k.refuses(decision)
		if refused || !k.wider {
			c.decisions = append(c.decisions, auditDecision(k, decision))
		}
		if refused {
			c.denial = c.sealDenial(k, decision, ask.context)
			return errAccessDenied(c.refusal(ask, k, decision))
		}
	}
	return nil
}

// refusal returns the message for a refused caller. If a name that does not exist would be
// refused too, the message is the one for such a name. So only callers who may see a
// cluster, its tags, a session or a role learn that it exists.
func (c *call) refusal(ask *asking, k *check, d iam.Decision) string {
	hint := k.hint
	for _, other := range k.asUnknown(c) {
		if decision := ask.decide(&other); other.refuses(decision) {
			k, d = &other, decision
			break
		}
	}
	resource := cmp.Or(k.told, k.resource)
	switch {
	case k.assume && c.caller.Principal.Type == iam.WebIdentityPrincipal:
		return "Not authorized to perform " + k.action
	case k.assume && (d.Effect != iam.ExplicitDeny || d.Layer == iam.TrustLayer):
		return "User: " + c.caller.Principal.ARN + " is not authorized to perform: " + k.action + " on resource: " + resource
	}
	return iam.DenialMessage(c.caller.Principal.ARN, k.action, resource, d) + hint
}

// asUnknown returns the checks that the call would need if the name did not exist.
func (k *check) asUnknown(c *call) []check {
	if k.unknown != nil {
		return k.unknown()
	}
	if k.tags == nil && k.trust == nil {
		return nil
	}
	other := *k
	other.tags = nil
	if k.trust != nil {
		other.trust = c.handler.nobody
	}
	return []check{other}
}

// asking decides the checks of one call. It keeps the context of the last check,
// because the checks of a call have most condition keys in common.
type asking struct {
	call    *call
	context *iam.Context
	last    check
}

func (c *call) ask() *asking { return &asking{call: c, context: c.requestContext()} }

// decide decides one check.
func (a *asking) decide(k *check) iam.Decision {
	context, last := a.context, &a.last
	for _, key := range last.keys {
		if !slices.Contains(k.keys, key) {
			context.SetList(key.name, nil)
		}
	}
	for _, key := range k.keys {
		if !slices.Contains(last.keys, key) {
			context.Set(key.name, key.value)
		}
	}
	if last.tags != k.tags {
		for tag := range last.resourceTags() {
			context.SetList("aws:ResourceTag/"+tag, nil)
		}
		for tag, value := range k.resourceTags() {
			context.Set("aws:ResourceTag/"+tag, value)
		}
	}
	if k.fill != nil && last.fill == nil {
		k.fill(context)
	}
	a.last = *k
	policies := a.call.caller.Policies
	if k.trust != nil {
		trusting := *policies
		trusting.Resource = k.trust
		policies = &trusting
	}
	return policies.Evaluate(a.request(k))
}

func (a *asking) request(k *check) *iam.Request {
	return &iam.Request{
		Principal: a.call.caller.Principal,
		Action:    k.action,
		Resource:  k.resource,
		Context:   a.context,
		Every:     k.every,
		EveryKey:  k.everyKey,
		SomeKey:   k.someKey,
	}
}

func (k *check) resourceTags() map[string]string {
	if k.tags == nil {
		return nil
	}
	return *k.tags
}

// requestContext returns the condition keys that every action has (IAM User Guide,
// reference_policies_condition-keys). A key without a value in the request is absent,
// which is not the same as empty.
func (c *call) requestContext() *iam.Context {
	k := iam.NewContext()
	c.caller.fill(k)
	if s := c.caller.Session; s != nil {
		k.Set("aws:MultiFactorAuthPresent", strconv.FormatBool(!s.MFA.IsZero()))
		if !s.MFA.IsZero() {
			k.Set("aws:MultiFactorAuthAge", strconv.FormatInt(int64(c.now.Sub(s.MFA).Seconds()), 10))
		}
	}
	if c.mfaChecked {
		k.Set("aws:MultiFactorAuthPresent", "true")
		k.Set("aws:MultiFactorAuthAge", "0")
	}
	if c.source.address.IsValid() {
		k.Set("aws:SourceIp", c.source.address.String())
	}
	k.Set("aws:SecureTransport", strconv.FormatBool(c.source.secure))
	k.Set("aws:CurrentTime", c.now.UTC().Format(time.RFC3339))
	k.Set("aws:EpochTime", strconv.FormatInt(c.now.Unix(), 10))
	k.Set("aws:RequestedRegion", c.directory.Region)
	k.Set("aws:ViaAWSService", "false")
	k.Set("aws:PrincipalIsAWSService", "false")
	if agent := c.http.UserAgent(); agent != "" {
		k.Set("aws:UserAgent", agent)
	}
	if referer := c.http.Referer(); referer != "" {
		k.Set("aws:Referer", referer)
	}
	return k
}

// fill sets the caller's own condition keys. A caller without an identity of ours, such
// as the holder of a web identity token, has none.
func (c *Caller) fill(k *iam.Context) {
	if c.PrincipalARN == "" {
		return
	}
	k.Set("aws:PrincipalArn", c.PrincipalARN)
	k.Set("aws:PrincipalAccount", c.Principal.Account)
	k.Set("aws:PrincipalType", string(c.Principal.Type))
	if c.UserID != "" {
		k.Set("aws:userid", c.UserID)
	}
	if c.User != nil {
		k.Set("aws:username", c.User.Name)
	}
	for tag, value := range c.Tags {
		k.Set("aws:PrincipalTag/"+tag, value)
	}
	s := c.Session
	if s == nil {
		return
	}
	k.Set("aws:TokenIssueTime", s.IssuedAt.Format(time.RFC3339))
	if s.SourceIdentity != "" {
		k.Set("aws:SourceIdentity", s.SourceIdentity)
	}
	if f := s.Federated; f != nil {
		k.Set("aws:FederatedProvider", f.ProviderARN)
		k.Set(f.Provider+":sub", f.Subject)
		if len(f.Audience) == 1 {
			k.Set(f.Provider+":aud", f.Audience[0])
		} else {
			k.SetList(f.Provider+":aud", f.Audience)
		}
		k.SetList(f.Provider+":amr", f.AMR)
	}
}

func auditDecision(k *check, d iam.Decision) audit.Decision {
	entry := audit.Decision{
		Action:   k.action,
		Resource: clip(k.resource, 1024),
		Layer:    d.Layer.String(),
		Policy:   d.Policy,
		Sid:      d.Sid,
		Index:    d.Index,
	}
	switch d.Effect {
	case iam.Allowed:
		entry.Effect = "Allow"
	case iam.ExplicitDeny:
		entry.Effect = "Deny"
	default:
		entry.Effect = "ImplicitDeny"
	}
	return entry
}
