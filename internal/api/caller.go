package api

import (
	"errors"
	"strings"
	"unicode"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sigv4"
	"github.com/daypass/daypass/internal/sts"
)

// Caller is an authenticated caller: the signature is verified, and the session token
// opened if there is one.
type Caller struct {
	// Principal is how policies see the caller.
	Principal iam.Principal
	// UserID is the unique id, aws:userid: AIDA… of an IAM user, AROA…:name of
	// a role session.
	UserID string
	// PrincipalARN is aws:PrincipalArn: the ARN that policies name, which for a
	// role session is the IAM role's.
	PrincipalARN string
	AccessKeyID  string
	// Policies are all policies that apply to the caller. They may be shared with other
	// calls and must not be changed.
	Policies *iam.Policies
	// Tags are the principal tags.
	Tags map[string]string
	// User or Role has the access key; the other one is nil.
	User *directory.User
	Role *directory.Role
	// Session is nil for a long-term access key.
	Session *sts.Session
}

// ofUser returns the caller who signed with an access key of an IAM user.
func ofUser(d *directory.Directory, u *directory.User, accessKeyID string) *Caller {
	return &Caller{
		Principal:    iam.Principal{Type: iam.UserPrincipal, ARN: u.ARN, Account: d.Account},
		UserID:       u.ID,
		PrincipalARN: u.ARN,
		AccessKeyID:  accessKeyID,
		Policies:     &u.Policies,
		Tags:         u.Tags,
		User:         u,
	}
}

// ofSession returns the caller who signed with a temporary access key. ok is false if
// the IAM role or user no longer exists, or if the one with its name has another ARN.
func ofSession(d *directory.Directory, s *sts.Session) (*Caller, bool) {
	if s.Account != d.Account {
		return nil, false
	}
	if s.Kind == sts.UserSession {
		u, ok := d.User(s.Name)
		if !ok || u.ID != s.PrincipalID {
			return nil, false
		}
		c := ofUser(d, u, s.AccessKeyID)
		c.Session = s
		return c, true
	}
	role, ok := d.Role(s.Name)
	if !ok || role.ID != s.PrincipalID || s.Kind != sts.RoleSession {
		return nil, false
	}
	c := &Caller{
		Principal: iam.Principal{Type: iam.RoleSessionPrincipal, ARN: sessionARN(d, role, s.SessionName),
			Account: d.Account, RoleARN: role.ARN},
		UserID:       role.ID + ":" + s.SessionName,
		PrincipalARN: role.ARN,
		AccessKeyID:  s.AccessKeyID,
		Policies:     &role.Policies,
		Tags:         role.Tags,
		Role:         role,
		Session:      s,
	}
	if s.Restricted() {
		policies := role.Policies
		policies.Session = sessionPolicies(d, s)
		c.Policies = &policies
	}
	if len(s.Tags) > 0 {
		c.Tags = withSessionTags(role.Tags, s.Tags)
	}
	return c, true
}

// sessionARN returns the ARN of a role session, which does not have the role's path.
func sessionARN(d *directory.Directory, role *directory.Role, session string) string {
	return "arn:" + d.Partition + ":sts::" + d.Account + ":assumed-role/" + role.Name + "/" + session
}

// sessionPolicies returns the session's policies. A managed policy that no longer
// exists allows nothing, and so does an empty list.
func sessionPolicies(d *directory.Directory, s *sts.Session) []*iam.Policy {
	policies := make([]*iam.Policy, 0, 1+len(s.PolicyARNs))
	if inline := s.InlinePolicy(); inline != nil {
		policies = append(policies, inline)
	}
	for _, arn := range s.PolicyARNs {
		if p, ok := d.Policy(arn); ok {
			policies = append(policies, p)
		}
	}
	return policies
}

// withSessionTags returns the tags of a role session. A session tag replaces a tag of the IAM role
// even if the two keys differ in case, because policies ignore case.
func withSessionTags(role map[string]string, session []sts.Tag) map[string]string {
	tags := make(map[string]string, len(role)+len(session))
	set := make(map[string]bool, len(session))
	for _, t := range session {
		tags[t.Key] = t.Value
		set[iam.FoldKey(t.Key)] = true
	}
	for key, value := range role {
		if !set[iam.FoldKey(key)] {
			tags[key] = value
		}
	}
	return tags
}

// origin returns the origin of a session that the caller makes: the session ends with it.
// It is nil if the access key is no longer in the configuration; then the caller can make
// no session.
func (c *call) origin() *sts.Origin {
	if s := c.caller.Session; s != nil {
		return s.Origin
	}
	key, ok := c.directory.AccessKey(c.caller.AccessKeyID)
	if !ok {
		return nil
	}
	return sts.KeyOrigin(key.ID, key.Secret)
}

// lookup returns a function that finds the secret of an access key for sigv4. It stores
// the caller that the key belongs to, who is not authenticated until the signature is
// verified.
func (c *call) lookup(candidate **Caller) sigv4.Lookup {
	return func(id, token string) (string, error) {
		if token == "" {
			key, ok := c.directory.AccessKey(id)
			if !ok {
				return "", sigv4.ErrUnknownKey
			}
			*candidate = ofUser(c.directory, key.User, id)
			return key.Secret.Reveal(), nil
		}
		session, err := c.handler.sessions.Open(c.keyring, c.now, id, token)
		switch {
		case errors.Is(err, sts.ErrExpired):
			return "", sigv4.ErrTokenExpired
		case err != nil:
			return "", sigv4.ErrInvalidToken
		}
		caller, ok := ofSession(c.directory, session)
		if !ok || !session.Stands(c.directory) {
			return "", sigv4.ErrInvalidToken
		}
		if !session.SignedIn.IsZero() {
			if err := c.stillSignedIn(caller.Principal.ARN, session.SignedIn); err != nil {
				return "", err
			}
		}
		*candidate = caller
		return session.Secret.Reveal(), nil
	}
}

// recordableKeyID returns the access key id that the request names, or "" if it may be a secret
// access key, which people give in the place of the id by mistake. A random secret has lower-case
// letters. The ids that AWS and `daypass init` make have none.
func (c *call) recordableKeyID() string {
	if !strings.ContainsFunc(c.claimed, unicode.IsLower) {
		return c.claimed
	}
	if _, known := c.directory.AccessKey(c.claimed); known {
		return c.claimed
	}
	return ""
}

// identity returns the caller for the audit log. If the caller was not authenticated,
// it has at most the access key id that the request names.
func (c *call) identity() audit.Identity {
	caller := c.caller
	switch {
	case c.federated != nil:
		return *c.federated
	case caller == nil:
		return audit.Identity{AccessKeyID: c.recordableKeyID()}
	}
	identity := audit.Identity{
		Type:        "IAMUser",
		PrincipalID: caller.UserID,
		ARN:         caller.Principal.ARN,
		AccountID:   caller.Principal.Account,
		AccessKeyID: caller.AccessKeyID,
	}
	if caller.User != nil {
		identity.UserName = caller.User.Name
	}
	s := caller.Session
	if s == nil {
		return identity
	}
	identity.Session = &audit.SessionContext{
		SourceIdentity:   s.SourceIdentity,
		CreationDate:     s.IssuedAt,
		MFAAuthenticated: !s.MFA.IsZero(),
	}
	if s.Federated != nil {
		identity.Session.FederatedProvider = s.Federated.ProviderARN
	}
	if role := caller.Role; role != nil {
		identity.Type = "AssumedRole"
		identity.Session.Issuer = &audit.SessionIssuer{Type: "Role", PrincipalID: role.ID, ARN: role.ARN,
			AccountID: caller.Principal.Account, UserName: role.Name}
	}
	return identity
}
