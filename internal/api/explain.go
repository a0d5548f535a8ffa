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

// ExplainInput describes a call to explain: who would make it, with which parameters,
// when and from where.
type ExplainInput struct {
	// Principal is the ARN of an IAM user, an IAM role, or a role session
	// (arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION). An IAM role stands for its
	// session called "explain".
	Principal string
	// Parameters are the call's, including Action, as on the wire.
	Parameters url.Values
	Source     netip.Addr // aws:SourceIp
	Secure     bool       // aws:SecureTransport
	// MFA makes the caller a session of GetSessionToken with a one-time password.
	// Without it the caller has a user's long-term key. Role sessions never have MFA.
	MFA bool
	Now time.Time
	// Extra are additional policies of the caller, to see what they would change.
	Extra []*iam.Policy
}

// Explanation is one check of the call with its decision.
type Explanation struct {
	Action   string
	Resource string
	// Conditions are the condition keys of this action with their values.
	Conditions map[string]string
	Decision   iam.Decision
	// NearMisses are the statements that would allow the check if one part of them were
	// different. They are set after an implicit deny.
	NearMisses []iam.NearMiss
}

// Outcome is the result that a call would have.
type Outcome struct {
	// Checks are all checks of the call, also those after the first refusal. There are
	// none if the parameters leave nothing to authorize.
	Checks []Explanation
	// Policies are the caller's.
	Policies *iam.Policies
	// Refusal is the API's answer to a caller with all permissions. It is nil unless a
	// parameter is invalid or the cluster does not exist.
	Refusal *awsquery.Error
}

// Allowed reports whether the call would succeed.
func (o Outcome) Allowed() bool {
	return o.Refusal == nil && !slices.ContainsFunc(o.Checks, func(e Explanation) bool { return !e.Decision.Allowed() })
}

// Explain decides every check of a call of GetClusterCredentials or
// GetClusterCredentialsWithIAM, and validates its parameters, with the functions that
// the API itself uses. An error is about the input.
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
		keyring:   throwaway(in.Now),
		now:       in.Now,
		source:    source{address: in.Source, secure: in.Secure},
		service:   redshiftService,
		query:     query,
		caller:    caller,
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

// throwaway returns keys that no gateway trusts. Some rules are checked only when a credential
// is made, so a call that is explained makes one, and discards it.
func throwaway(now time.Time) *keyring.Keyring { return keyring.New(now) }

// refuse stores the answer that the API would give. It returns an internal error.
func (o *Outcome) refuse(err error) error {
	if o.Refusal = answerTo(err); o.Refusal != nil {
		return nil
	}
	return err
}

// explain is operation for a call that is only explained: it continues after a refusal.
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
	refused := false
	for _, k := range needs(p, c) {
		if c.hiding {
			k = k.asTold(c, ask, refused)
		}
		e := Explanation{Action: k.action, Resource: k.resource, Conditions: map[string]string{}}
		for _, key := range k.keys {
			e.Conditions[key.name] = key.value
		}
		e.Decision = ask.decide(&k)
		refused = refused || k.refuses(e.Decision)
		if e.Decision.Effect == iam.ImplicitDeny {
			e.NearMisses = c.caller.Policies.NearMisses(e.Decision.Layer, ask.request(&k))
		}
		o.Checks = append(o.Checks, e)
	}
	_, err := act(p, c)
	return err
}

// asTold returns the check that the explanation shows. If the check is refused, and the check for a
// name that does not exist would be refused too, asTold returns the latter, so that the explanation
// does not reveal what exists. after means that an earlier check was refused. The call itself would
// have ended there, so then asTold always returns the check for a name that does not exist.
func (k check) asTold(c *call, ask *asking, after bool) check {
	unknown := k.asUnknown(c)
	if after && len(unknown) > 0 {
		return unknown[0]
	}
	if d := ask.decide(&k); !k.refuses(d) {
		return k
	}
	for _, other := range unknown {
		if d := ask.decide(&other); other.refuses(d) {
			return other
		}
	}
	return k
}

// supposedCaller returns the caller that the principal's ARN stands for.
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
		return nil, fmt.Errorf("principal: the configuration has no IAM role for %s: check name and path, under iam.roles", in.Principal)
	}
	caller, ok := ofSession(d, &sts.Session{
		Kind:        sts.RoleSession,
		Account:     d.Account,
		Name:        role.Name,
		PrincipalID: role.ID,
		SessionName: session,
		IssuedAt:    in.Now,
	})
	// Partition and path have to match too.
	if !ok || in.Principal != role.ARN && in.Principal != caller.Principal.ARN {
		return nil, fmt.Errorf("principal: the configuration has no IAM role for %s: check name and path, under iam.roles", in.Principal)
	}
	return caller, nil
}

func supposedUser(d *directory.Directory, in ExplainInput) (*Caller, error) {
	user, ok := d.User(lastPart(in.Principal))
	switch {
	case !ok || user.ARN != in.Principal:
		return nil, fmt.Errorf("principal: the configuration has no IAM user %s: check name and path, under iam.users", in.Principal)
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

// lastPart returns the name at the end of an ARN or of a resource: what follows the last slash.
func lastPart(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
