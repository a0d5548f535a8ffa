package api

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// check is one question that has to be answered with yes.
type check struct {
	action   string // redshift:JoinGroup
	resource string // an ARN
	// keys are the condition keys that the Service Authorization Reference
	// lists for this action, and no others: what it does not list is absent,
	// at AWS as here.
	keys []conditionKey
	// cluster lends its tags to aws:ResourceTag. Optional.
	cluster *directory.Cluster
}

type conditionKey struct{ name, value string }

// authorize asks the checks one after the other. The first refusal ends the call.
func (c *call) authorize(checks []check) error {
	if len(checks) == 0 {
		return nil
	}
	context := c.requestContext()
	c.decisions = make([]audit.Decision, 0, len(checks))
	var last check
	for _, k := range checks {
		decision := c.decide(context, &last, &k)
		c.decisions = append(c.decisions, auditDecision(&k, decision))
		if !decision.Allowed() {
			return &awsquery.Error{Code: "AccessDenied", Status: http.StatusForbidden,
				Message: iam.DenialMessage(c.caller.Principal.ARN, k.action, k.resource, decision)}
		}
		last = k
	}
	return nil
}

// decide answers one check. The context still has the keys of the last one;
// checks of one call have most of theirs in common.
func (c *call) decide(context *iam.Context, last, k *check) iam.Decision {
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
	if last.cluster != k.cluster {
		for tag := range tagsOf(last.cluster) {
			context.SetList("aws:ResourceTag/"+tag, nil)
		}
		for tag, value := range tagsOf(k.cluster) {
			context.Set("aws:ResourceTag/"+tag, value)
		}
	}
	return c.caller.Policies.Evaluate(&iam.Request{
		Principal: c.caller.Principal,
		Action:    k.action,
		Resource:  k.resource,
		Context:   context,
	})
}

func tagsOf(cluster *directory.Cluster) map[string]string {
	if cluster == nil {
		return nil
	}
	return cluster.Tags
}

// requestContext holds the condition keys that every action has (IAM User Guide,
// reference_policies_condition-keys). A key that the request has no value for is
// absent, which is not the same as empty.
func (c *call) requestContext() *iam.Context {
	k := iam.NewContext()
	caller := c.caller
	k.Set("aws:PrincipalArn", caller.PrincipalARN)
	k.Set("aws:PrincipalAccount", caller.Principal.Account)
	k.Set("aws:PrincipalType", string(caller.Principal.Type))
	k.Set("aws:userid", caller.UserID)
	if caller.User != nil {
		k.Set("aws:username", caller.User.Name)
	}
	for tag, value := range caller.Tags {
		k.Set("aws:PrincipalTag/"+tag, value)
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

func auditDecision(k *check, d iam.Decision) audit.Decision {
	entry := audit.Decision{
		Action:   k.action,
		Resource: k.resource,
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
