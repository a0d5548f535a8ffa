package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
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
	// MFA makes it a session of GetSessionToken that a one-time password was used
	// for; false leaves a user's long-term key. Role sessions never have it.
	MFA bool
	Now time.Time
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
	// NearMisses are, after an implicit deny, the statements that would allow it
	// but for one thing.
	NearMisses []iam.NearMiss
}

// Outcome is what would come of a call.
type Outcome struct {
	// Checks are all that the call needs, also those behind the first refusal.
	// There are none when the call leaves nothing to authorize.
	Checks []Explanation
	// Policies are the caller's.
	Policies *iam.Policies
	// Refusal is the API's answer to a caller who may do all that: nil, unless a
	// parameter breaks a rule or there is no such cluster.
	Refusal *awsquery.Error
}

// Allowed reports whether the call would be carried out.
func (o Outcome) Allowed() bool {
	return o.Refusal == nil && !slices.ContainsFunc(o.Checks, func(e Explanation) bool { return !e.Decision.Allowed() })
}

// Explain answers every check that a call of GetClusterCredentials or
// GetClusterCredentialsWithIAM needs, and says whether its parameters would be
// taken. It asks the functions that the API itself asks. An error says what is
// wrong with the input.
func Explain(d *directory.Directory, in ExplainInput) (Outcome, error) {
	var outcome Outcome
	caller, err := supposedCaller(d, in)
	if err != nil {
		return outcome, err
	}
	outcome.Policies = caller.Policies
	if len(in.Extra) > 0 {
		policies := *caller.Policies
		policies.Identity = append(policies.Identity[:len(policies.Identity):len(policies.Identity)], in.Extra...)
		caller.Policies = &policies
	}
	request, err := http.NewRequest(http.MethodPost, "http://explain/", nil)
	if err != nil {
		return outcome, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	query, err := awsquery.Parse(request, []byte(in.Parameters.Encode()))
	if err != nil {
		err = outcome.refuse(err)
		return outcome, err
	}
	c := &call{
		http:      request,
		directory: d,
		// The credential is made, as the last rules are about it, and thrown away:
		// nobody trusts these keys.
		keyring: keyring.New(in.Now),
		now:     in.Now,
		source:  source{address: in.Source, secure: in.Secure},
		service: redshiftService,
		query:   query,
		caller:  caller,
	}
	switch query.Action {
	case "GetClusterCredentials":
		err = explain(c, &outcome, readGetClusterCredentials, (*getClusterCredentials).needs, (*getClusterCredentials).act)
	case "GetClusterCredentialsWithIAM":
		err = explain(c, &outcome, readWithIAM, (*withIAM).needs, (*withIAM).act)
	default:
		return outcome, fmt.Errorf("action %q cannot be explained: GetClusterCredentials and GetClusterCredentialsWithIAM can", query.Action)
	}
	err = outcome.refuse(err)
	return outcome, err
}

// refuse keeps what the API would answer with; what it would call an internal
// failure comes back.
func (o *Outcome) refuse(err error) error {
	if o.Refusal = answerTo(err); o.Refusal != nil {
		return nil
	}
	return err
}

// explain is operation for a call that is not made: it goes on after a refusal.
func explain[P any](c *call, o *Outcome,
	read func(*reader) *P,
	needs func(*P, *call) []check,
	act func(*P, *call) (awsquery.Result, error),
) error {
	r := reader{call: c}
	p := read(&r)
	if r.err != nil {
		return r.err
	}
	ask := c.ask()
	for _, k := range needs(p, c) {
		e := Explanation{Action: k.action, Resource: k.resource, Conditions: map[string]string{}}
		for _, key := range k.keys {
			e.Conditions[key.name] = key.value
		}
		e.Decision = ask.decide(&k)
		if e.Decision.Effect == iam.ImplicitDeny {
			e.NearMisses = c.caller.Policies.NearMisses(e.Decision.Layer, ask.request(&k))
		}
		o.Checks = append(o.Checks, e)
	}
	_, err := act(p, c)
	return err
}

// supposedCaller is the caller that a principal's ARN stands for.
func supposedCaller(d *directory.Directory, in ExplainInput) (*Caller, error) {
	principal, err := iam.PrincipalFromARN(in.Principal)
	switch {
	case err != nil:
		return nil, fmt.Errorf("principal: %w", err)
	case principal.Account != d.Account:
		return nil, fmt.Errorf("principal: account %s is not this one, %s", principal.Account, d.Account)
	case principal.Type == iam.UserPrincipal:
		return supposedUser(d, in)
	case principal.Type != iam.RoleSessionPrincipal:
		return nil, fmt.Errorf("principal: %s is no IAM user, IAM role or role session", in.Principal)
	case in.MFA:
		return nil, errors.New("principal: aws:MultiFactorAuthPresent is never true in a session of an IAM role; " +
			"a one-time password counts when the role is assumed")
	}
	name, session := lastPart(principal.RoleARN), "explain"
	if principal.ARN != principal.RoleARN {
		session = lastPart(principal.ARN)
		if err := sessionName.check("roleSessionName", session); err != nil {
			return nil, fmt.Errorf("principal: %w", err)
		}
	}
	role, ok := d.Role(name)
	if !ok {
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
	// The rest of the ARN has to be right too: partition and path.
	if !ok || in.Principal != role.ARN && in.Principal != caller.Principal.ARN {
		return nil, fmt.Errorf("principal: there is no IAM role for %s", in.Principal)
	}
	return caller, nil
}

func supposedUser(d *directory.Directory, in ExplainInput) (*Caller, error) {
	user, ok := d.User(lastPart(in.Principal))
	switch {
	case !ok || user.ARN != in.Principal:
		return nil, fmt.Errorf("principal: there is no user %s", in.Principal)
	case !in.MFA:
		return ofUser(d, user, ""), nil
	case len(user.MFADevices) == 0:
		return nil, fmt.Errorf("principal: %s has no MFA device", in.Principal)
	}
	caller, ok := ofSession(d, &sts.Session{
		Kind:        sts.UserSession,
		Account:     d.Account,
		Name:        user.Name,
		PrincipalID: user.ID,
		IssuedAt:    in.Now,
		MFA:         in.Now,
	})
	if !ok {
		return nil, fmt.Errorf("principal: %s cannot have a session", in.Principal)
	}
	return caller, nil
}

func lastPart(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
