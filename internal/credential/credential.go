package credential

import (
	"errors"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

// MaxLifetime is the longest life of a credential. A longer one is not minted, and
// refused even when it is signed.
const MaxLifetime = keyring.CredentialLifetime

// MaxClockSkew is how far the time of issue may be ahead of the checking machine's
// clock. The expiry has no such tolerance.
const MaxClockSkew = time.Minute

// MaxLength is the longest password that Mint makes and Check looks at.
const MaxLength = 4096

// Kind says which call a credential comes from.
type Kind uint8

// The kinds of credentials.
const (
	// DatabaseUser comes from GetClusterCredentials: DBUser is a database user's name.
	DatabaseUser Kind = iota
	// Identity comes from GetClusterCredentialsWithIAM: DBUser is the caller's name
	// with its prefix, "IAM:ana" or "IAMR:etl", and is always made when it is missing.
	Identity
)

// Grant is the content of a credential.
type Grant struct {
	ID         string   // from NewID
	Cluster    string   // the only cluster that it is valid for
	Database   string   // the only database, or empty: any
	DBUser     string   // the database user
	DBGroups   []string // the groups, for the session only, in the order of the request
	AutoCreate bool     // make the database user if it is missing; always true for Identity
	Kind       Kind
	Principal  string    // ARN of the caller that requested it
	IssuedAt   time.Time // whole seconds
	NotAfter   time.Time // whole seconds; at this instant it is expired
}

// LogonName returns the user name that the holder logs on with: "IAM:alice", or
// "IAMA:alice" with AutoCreate; for an Identity DBUser itself.
func (g Grant) LogonName() string {
	switch {
	case g.Kind == Identity:
		return g.DBUser
	case g.AutoCreate:
		return "IAMA:" + g.DBUser
	}
	return "IAM:" + g.DBUser
}

// AcceptsUser reports whether the user name of a start-up message is the credential's:
// its LogonName, or the long form in AWS's guide, with all groups appended in the order
// of the grant ("IAMA:alice:analysts:finance").
func (g Grant) AcceptsUser(user string) bool {
	name := g.LogonName()
	if user == name {
		return true
	}
	return len(g.DBGroups) > 0 && user == name+":"+strings.Join(g.DBGroups, ":")
}

// Reasons why a check fails. Error wraps one of them.
var (
	ErrMalformed   = errors.New("malformed")     // not a credential, or one whose signed claims make no sense
	ErrUnknownKey  = errors.New("unknown key")   // signed by a key that the keyring does not have (any more)
	ErrForged      = errors.New("forged")        // the signature does not match the content
	ErrExpired     = errors.New("expired")       // genuine, but no longer valid
	ErrNotYetValid = errors.New("not yet valid") // genuine, and issued in the future: a clock is wrong
)

// ErrTooLong is returned by Mint if the credential would be longer than MaxLength
// because its groups have too many characters.
var ErrTooLong = errors.New("credential too long")

// ErrNoKey is returned by Mint while the server has no key that may sign.
var ErrNoKey = errors.New("no key may sign credentials now: it could not be certified for hours, because the registry cannot be reached")

// Error is why Check refused a password. The reason never quotes the password.
type Error struct {
	Err    error  // one of the sentinels
	Reason string // for the operator; the client gets a less precise one
}

func (e *Error) Error() string { return "credential: " + e.Err.Error() + ": " + e.Reason }

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.Err }
