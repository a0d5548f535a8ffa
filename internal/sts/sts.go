// Package sts makes temporary access keys. It also verifies what callers show to get them:
// web identity tokens and one-time passwords (STS API Reference, version 2011-06-15; IAM
// User Guide, id_credentials_temp, id_session-tags, id_roles_providers_oidc).
//
// A session token is self-contained: it is the Session, sealed by the keyring.
// Nothing is stored. A token survives a restart and works on every machine with
// the same keyring; it is bound to its access key id, and ends by the clock, by
// the keyring's rotation, with its IAM role or user, or with the access key or
// identity provider that it was made with.
//
//	token      base64(box)
//	box        keyring.Seal(CBOR of the session, "access key ASIA…" as additional data)
//	session    secret access key, whose it is, session name, times, and packed:
//	           DEFLATE of CBOR of session policies and tags
//
// Package sts makes no authorization decisions: package api evaluates the trust policy
// with the condition keys that this package finds in tokens.
//
// Opened sessions and identity providers' public keys are cached. The last one-time
// password of each MFA device is remembered, by this process only, so that it is not
// accepted twice.
package sts

import (
	"errors"
	"time"

	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
)

// Kind is the kind of a session.
type Kind uint8

// The kinds of sessions.
const (
	// RoleSession is a session of an IAM role, from AssumeRole or
	// AssumeRoleWithWebIdentity.
	RoleSession Kind = 1
	// UserSession is a session of an IAM user, from GetSessionToken.
	UserSession Kind = 2
)

// Session is the content of a session token.
type Session struct {
	AccessKeyID string
	Secret      keyring.Secret
	Kind        Kind
	// Account, Name and PrincipalID are those of the IAM role or user. PrincipalID depends
	// on the ARN, so a role that was created again with another path has another id.
	Account     string
	Name        string
	PrincipalID string
	// SessionName is the role session's. Empty for a UserSession.
	SessionName    string
	SourceIdentity string
	// Tags are the session tags, including inherited ones. Transitive are the keys of
	// the tags that further sessions inherit.
	Tags       []Tag
	Transitive []string
	// Policy is the inline session policy, and PolicyARNs are the managed ones. If there are
	// any, the session may do only what they also allow.
	Policy     string
	PolicyARNs []string
	// Federated is the web identity of AssumeRoleWithWebIdentity, or nil.
	Federated *Federated
	// MFA is when a one-time password was checked, zero if none was. Only a
	// UserSession has it: the credentials of an IAM role do not carry it (IAM
	// User Guide, id_credentials_mfa_configure-api-require).
	MFA time.Time
	// SignedIn is when the person behind the session signed in, or zero if the session was
	// not made for a sign-in. A revocation of the principal reaches such a session: see
	// package api.
	SignedIn time.Time
	// Origin is the access key or provider that the session was made with. It is nil in
	// tokens of earlier versions; see Stands.
	Origin             *Origin
	IssuedAt, NotAfter time.Time // whole seconds; at NotAfter it is expired

	// inline is Policy, compiled when the token was opened.
	inline *iam.Policy
}

// Tag is a session tag. Keys are compared as iam.FoldKey has them.
type Tag struct {
	_          struct{} `cbor:",toarray"`
	Key, Value string
}

// Federated is the part of a web identity that the role session keeps: the condition keys
// that policies of the session may ask for.
type Federated struct {
	_           struct{} `cbor:",toarray"`
	ProviderARN string
	Provider    string // the issuer without its scheme, the prefix of the keys
	Subject     string
	Audience    []string
	AMR         []string
}

// InlinePolicy returns the session policy that was given as a document, compiled, or
// nil. Only opened sessions have it.
func (s *Session) InlinePolicy() *iam.Policy { return s.inline }

// Restricted reports whether there are session policies.
func (s *Session) Restricted() bool { return s.Policy != "" || len(s.PolicyARNs) > 0 }

// Inherited returns the tags that a session assumed from this one starts with. A nil
// session has none.
func (s *Session) Inherited() []Tag {
	if s == nil {
		return nil
	}
	transitive := make(map[string]bool, len(s.Transitive))
	for _, key := range s.Transitive {
		transitive[iam.FoldKey(key)] = true
	}
	var tags []Tag
	for _, t := range s.Tags {
		if transitive[iam.FoldKey(t.Key)] {
			tags = append(tags, t)
		}
	}
	return tags
}

// Ways in which opening a session token fails.
var (
	// ErrInvalidToken means that the keyring did not seal the token, or sealed it for
	// another access key, or has dropped the key since.
	ErrInvalidToken = errors.New("session token is not one of ours for this access key")
	// ErrExpired means that the session was valid but has expired.
	ErrExpired = errors.New("session is expired")
	// ErrPackedTooLarge means that session policies and tags do not fit into a
	// token.
	ErrPackedTooLarge = errors.New("packed session policies and tags are too large")
)
