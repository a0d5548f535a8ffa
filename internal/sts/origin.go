package sts

import (
	"crypto/sha256"
	"crypto/subtle"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
)

// Origin is the long-lived trust that a session was made with: an access key of an
// IAM user, or an identity provider. A session that is made with another session
// has the origin of that one, so that a chain of roles ends with the key it began
// with, however long it is.
type Origin struct {
	_           struct{} `cbor:",toarray"`
	AccessKeyID string
	// Digest is the hash of the access key's ID and secret. If the secret is replaced under the
	// same ID, it counts as another key.
	Digest []byte
	// Issuer is the identity provider, if the origin is not an access key.
	Issuer string
}

// KeyOrigin returns the origin of a session made with an access key.
func KeyOrigin(id string, secret keyring.Secret) *Origin {
	return &Origin{AccessKeyID: id, Digest: keyDigest(id, secret)}
}

// ProviderOrigin returns the origin of a session made with a provider's token.
func ProviderOrigin(p *directory.Provider) *Origin { return &Origin{Issuer: p.Issuer} }

// keyDigest is sealed with the session and never leaves it in the clear.
func keyDigest(id string, secret keyring.Secret) []byte {
	sum := sha256.Sum256([]byte("daypass session origin\x00" + id + "\x00" + secret.Reveal()))
	return sum[:16]
}

// Stands reports whether the configuration still has the session's origin: the identity provider,
// or the access key with the same secret. For a session of GetSessionToken, the access key must
// also belong to the same user as before. A session without an origin, from an earlier version,
// does not stand.
func (s *Session) Stands(d *directory.Directory) bool {
	o := s.Origin
	switch {
	case o == nil:
		return false
	case o.AccessKeyID == "":
		_, ok := d.Provider(o.Issuer)
		return ok && s.Kind == RoleSession
	}
	key, ok := d.AccessKey(o.AccessKeyID)
	return ok && subtle.ConstantTimeCompare(keyDigest(key.ID, key.Secret), o.Digest) == 1 &&
		(s.Kind == RoleSession || key.User.ID == s.PrincipalID)
}
