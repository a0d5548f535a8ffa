package api

import (
	"errors"
	"net/http"
	"strings"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

// webIdentity exchanges a token of an OpenID Connect provider for a session of an IAM
// role: STS API Reference, AssumeRoleWithWebIdentity. The call is not signed: the token
// authenticates it, and only the trust policy authorises it.
type webIdentity struct {
	assumption
	identity *sts.WebIdentity
}

func readWebIdentity(r *reader) *webIdentity {
	p := &webIdentity{assumption: readAssumption(r)}
	token, given := r.hidden("WebIdentityToken", webToken)
	if !given {
		r.fail(errConstraint("webIdentityToken", "not be null"))
	}
	if r.text("ProviderId").value != "" {
		r.fail(errValidation("ProviderId is for OAuth 2.0 access tokens, which are not supported"))
	}
	if r.err != nil {
		return p
	}
	identity, err := r.handler.identities.Verify(r.http.Context(), r.directory, r.now, token)
	if err != nil {
		r.fail(webTokenError(err))
		return p
	}
	if err := p.read(r.call, identity); err != nil {
		r.fail(err)
	} else if peoples := r.handler.config.ForSignIn; peoples != nil && peoples(identity.Provider.Issuer, identity.Audience) {
		r.fail(errForSignIn)
	}
	return p
}

var errForSignIn = &awsquery.Error{Code: "InvalidIdentityToken", Status: http.StatusBadRequest,
	Message: "The token is for sign_in.client_id, with which people sign in at the browser (daypass login). Get a token for another audience of the identity provider."}

// read takes the caller and the parameters of the session from a verified token. It fails
// if the caller is over its limits, or if the token asks for something that no session can
// have.
func (p *webIdentity) read(c *call, identity *sts.WebIdentity) error {
	provider := c.directory.ProviderARN(identity.Provider)
	c.federated = &audit.Identity{
		Type:             "WebIdentityUser",
		PrincipalID:      provider + ":" + strings.Join(identity.Audience, ",") + ":" + identity.Subject,
		UserName:         identity.Subject,
		IdentityProvider: provider,
	}
	if err := c.admitFederated(identity.Provider.Issuer, identity.Subject); err != nil {
		return err
	}
	if err := checkTags(identity.Tags, identity.Transitive); err != nil {
		return err
	}
	if identity.SourceIdentity != "" {
		if err := sessionName.check("sourceIdentity", identity.SourceIdentity); err != nil {
			return err
		}
	}
	p.identity = identity
	p.tags, p.transitive, p.sourceIdentity = identity.Tags, identity.Transitive, identity.SourceIdentity
	// The principal is the identity provider, which has no policies of its own.
	c.caller = &Caller{
		Principal: iam.Principal{Type: iam.WebIdentityPrincipal, ARN: provider, Account: c.directory.Account},
		Policies:  &iam.Policies{},
	}
	return nil
}

func (p *webIdentity) needs(c *call) []check {
	fill := func(k *iam.Context) {
		p.fill(k)
		k.Set("aws:FederatedProvider", c.directory.ProviderARN(p.identity.Provider))
		prefix := p.identity.Provider.Name() + ":"
		for _, claim := range p.identity.Claims {
			if claim.List {
				k.SetList(prefix+claim.Name, claim.Values)
			} else {
				k.Set(prefix+claim.Name, claim.Values[0])
			}
		}
		if p.sourceIdentity != "" {
			k.Set("sts:SourceIdentity", p.sourceIdentity)
		}
	}
	return p.checks(c, "sts:AssumeRoleWithWebIdentity", fill, len(p.tags) > 0, p.sourceIdentity != "")
}

func (p *webIdentity) act(c *call) (awsquery.Result, error) {
	federated := p.identity.Federated(c.directory)
	result, err := c.assume(&p.assumption, sts.ProviderOrigin(p.identity.Provider), federated)
	if err != nil {
		return nil, err
	}
	result.federated, result.issuer = federated, p.identity.Provider.Issuer
	c.response = append(c.response, audit.String("subjectFromWebIdentityToken", p.identity.Subject),
		audit.String("provider", p.identity.Provider.Issuer))
	return result, nil
}

// webTokenError returns AWS's error for a token that was refused.
func webTokenError(err error) error {
	answer := &awsquery.Error{Code: "InvalidIdentityToken", Status: http.StatusBadRequest, Cause: err}
	var algorithm *sts.AlgorithmError
	switch {
	case errors.As(err, &algorithm):
		answer.Message = "The " + algorithm.Error()
	case errors.Is(err, sts.ErrTokenExpired):
		answer.Code = "ExpiredTokenException"
		answer.Message = "Token expired: the current time must be before the expiration time."
	case errors.Is(err, sts.ErrUnreachable):
		answer.Code = "IDPCommunicationError"
		answer.Message = "Couldn't retrieve verification key from your identity provider. Try again."
	case errors.Is(err, sts.ErrNoProvider):
		answer.Message = "No OpenIDConnect provider found in your account for the issuer of the token."
	case errors.Is(err, sts.ErrAudience):
		answer.Message = "Incorrect token audience"
	case errors.Is(err, sts.ErrNotJWT):
		answer.Message = "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
	case errors.Is(err, sts.ErrBadSignature):
		answer.Message = "The signature of the token is not of a key of the identity provider."
	case errors.Is(err, sts.ErrTokenTooEarly):
		answer.Message = "The token is not valid yet."
	case errors.Is(err, sts.ErrBadClaims):
		answer.Message = "The token lacks a claim that it has to have, or has one twice, or one that makes no sense."
	default:
		return err
	}
	return answer
}
