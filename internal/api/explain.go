package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

// ExplainInput is a call that is not made: who would make it, with which
// parameters, when and from where.
type ExplainInput struct {
	// Principal is the ARN of an IAM user, of an IAM role, or of a role session
	// (arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION). A role alone is taken as
	// a session called "explain".
	Principal string
	// Parameters are the call's, with Action, as on the wire.
	Parameters url.Values
	Source     netip.Addr // aws:SourceIp
	Secure     bool       // aws:SecureTransport
	MFA        bool       // aws:MultiFactorAuthPresent; false leaves a user's long-term key
	Now        time.Time
	// Extra are policies that the caller is supposed to hold as well, to see
	// what they would change.
	Extra []*iam.Policy
}

// Explanation is one check of the call and what came of it.
type Explanation struct {
	Action   string
	Resource string
	// Conditions are the condition keys that this action has of its own, with
	// their values.
	Conditions map[string]string
	Decision   iam.Decision
}

// Explain answers every check that a call of GetClusterCredentials or
// GetClusterCredentialsWithIAM needs, also those behind the first refusal. It
// asks the functions that the API itself asks. An error says what is wrong with
// the input.
func Explain(d *directory.Directory, in ExplainInput) ([]Explanation, error) {
	request, err := http.NewRequest(http.MethodPost, "http://explain/", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	query, err := awsquery.Parse(request, []byte(in.Parameters.Encode()))
	if err != nil {
		return nil, err
	}
	caller, err := supposedCaller(d, in)
	if err != nil {
		return nil, err
	}
	if len(in.Extra) > 0 {
		policies := *caller.Policies
		policies.Identity = append(policies.Identity[:len(policies.Identity):len(policies.Identity)], in.Extra...)
		caller.Policies = &policies
	}
	c := &call{
		http:       request,
		directory:  d,
		now:        in.Now,
		source:     source{address: in.Source, secure: in.Secure},
		service:    redshiftService,
		query:      query,
		caller:     caller,
		mfaChecked: in.MFA,
	}
	r := reader{call: c}
	var checks []check
	switch query.Action {
	case "GetClusterCredentials":
		checks = readGetClusterCredentials(&r).needs(c)
	case "GetClusterCredentialsWithIAM":
		checks = readWithIAM(&r).needs(c)
	default:
		return nil, fmt.Errorf("action %q cannot be explained: GetClusterCredentials and GetClusterCredentialsWithIAM can", query.Action)
	}
	if r.err != nil {
		return nil, r.err
	}
	context := c.requestContext()
	list := make([]Explanation, 0, len(checks))
	var last check
	for _, k := range checks {
		e := Explanation{Action: k.action, Resource: k.resource, Conditions: map[string]string{}}
		for _, key := range k.keys {
			e.Conditions[key.name] = key.value
		}
		e.Decision = c.decide(context, &last, &k)
		list = append(list, e)
		last = k
	}
	return list, nil
}

// supposedCaller is the caller that a principal's ARN stands for.
func supposedCaller(d *directory.Directory, in ExplainInput) (*Caller, error) {
	arn, err := iam.ParseARN(in.Principal)
	if err != nil {
		return nil, fmt.Errorf("principal: %w", err)
	}
	if arn.Account != d.Account {
		return nil, fmt.Errorf("principal: account %s is not this one, %s", arn.Account, d.Account)
	}
	kind, rest, _ := strings.Cut(arn.Resource, "/")
	name := rest[strings.LastIndexByte(rest, '/')+1:]
	session := "explain"
	switch arn.Service + ":" + kind {
	case "iam:user":
		user, ok := d.User(name)
		if !ok || user.ARN != in.Principal {
			return nil, fmt.Errorf("principal: there is no user %s", in.Principal)
		}
		return ofUser(d, user, ""), nil
	case "sts:assumed-role":
		name, session, _ = strings.Cut(rest, "/")
	case "iam:role":
	default:
		return nil, fmt.Errorf("principal: %s is no IAM user, IAM role or role session", in.Principal)
	}
	role, ok := d.Role(name)
	if !ok || session == "" || arn.Service == "iam" && role.ARN != in.Principal {
		return nil, fmt.Errorf("principal: there is no IAM role for %s", in.Principal)
	}
	caller, ok := ofSession(d, &sts.Session{
		Kind:        sts.RoleSession,
		Account:     d.Account,
		Name:        role.Name,
		PrincipalID: role.ID,
		SessionName: session,
		IssuedAt:    in.Now,
	})
	if !ok {
		return nil, fmt.Errorf("principal: %s cannot have a session", in.Principal)
	}
	return caller, nil
}
