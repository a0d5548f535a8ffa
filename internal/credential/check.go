package credential

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/keyring"
)

// latest is the last second of the year 9999.
const latest = 253402300799

// fault returns the reason why a grant is invalid, for the signer and the checker
// alike, or "".
func (g Grant) fault() string {
	if _, ok := parseID(g.ID); !ok {
		return "the identifier is not one of NewID"
	}
	for _, one := range []struct{ what, name string }{
		{"principal", g.Principal}, {"cluster", g.Cluster}, {"database user", g.DBUser},
	} {
		if one.name == "" {
			return "no " + one.what
		}
		if !plain(one.name) {
			return "the " + one.what + " has control characters or is not UTF-8"
		}
	}
	if !plain(g.Database) {
		return "the database has control characters or is not UTF-8"
	}
	switch g.Kind {
	case DatabaseUser:
		// A colon would let a user name pass for another user's with a group.
		if strings.Contains(g.DBUser, ":") {
			return "the database user has a colon"
		}
	case Identity:
		kind, name, _ := strings.Cut(g.DBUser, ":")
		if kind != "IAM" && kind != "IAMR" || name == "" {
			return "the database user of an identity does not begin with IAM: or IAMR:"
		}
		if !g.AutoCreate {
			return "an identity without autocreate"
		}
	default:
		return "a kind that this version does not know"
	}
	for _, group := range g.DBGroups {
		if group == "" || strings.Contains(group, ":") || !plain(group) {
			return "a group is empty, has a colon or control characters, or is not UTF-8"
		}
	}
	issued, expires := g.IssuedAt.Unix(), g.NotAfter.Unix()
	switch {
	case issued < 0 || expires > latest:
		return "a time is out of range"
	case g.IssuedAt.Nanosecond() != 0 || g.NotAfter.Nanosecond() != 0:
		return "a time is not in whole seconds"
	case expires <= issued:
		return "expires before it is issued"
	case expires-issued > int64(MaxLifetime/time.Second):
		return fmt.Sprintf("lives longer than %v", MaxLifetime)
	}
	return ""
}

func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Mint signs a grant with the key in use at IssuedAt and returns the password. An
// Identity always has AutoCreate. It returns ErrTooLong for too many groups, and
// another error for a grant that Check would refuse: a mistake of the caller.
func Mint(k *keyring.Keyring, g Grant) (keyring.Secret, error) {
	g.AutoCreate = g.AutoCreate || g.Kind == Identity
	if fault := g.fault(); fault != "" {
		return "", errors.New("minting a credential: " + fault)
	}
	if !k.MaySign(g.IssuedAt) {
		return "", ErrNoKey
	}
	id, sign := k.Signer(g.IssuedAt)
	c := g.claims()
	var protected [16]byte
	var payload [512]byte // enough for a usual grant
	t := token{
		Protected: header{Algorithm: algorithmEdDSA, KeyID: id}.appendTo(protected[:0]),
		Payload:   c.appendTo(payload[:0]),
	}
	t.Signature = sign(t.toBeSigned())
	password := t.password()
	if len(password) > MaxLength {
		return "", fmt.Errorf("%w: %d characters, and %d are allowed: fewer or shorter groups are needed", ErrTooLong, len(password), MaxLength)
	}
	return keyring.Secret(password), nil
}

// Check returns the grant of a password at the time now. Any text but a password that
// Mint returned is refused with an *Error that wraps ErrMalformed, ErrUnknownKey,
// ErrForged, ErrExpired or ErrNotYetValid. For the last two the grant is returned as
// well: the signature is valid, so the holder may learn the reason. For the others the
// grant is empty.
//
// The password is refused from NotAfter on. The caller compares cluster, database and
// user of the grant with the logon.
func Check(v *keyring.Verifier, password string, now time.Time) (Grant, error) {
	t, h, reason := parseToken(password)
	if reason != "" {
		return Grant{}, &Error{ErrMalformed, reason}
	}
	if err := t.verify(v, h, now); err != nil {
		return Grant{}, err
	}
	g, reason := t.parseClaims()
	if reason != "" {
		return Grant{}, &Error{ErrMalformed, "the signature is right, but " + reason}
	}
	return g, g.timely(now)
}

func (t *token) verify(v *keyring.Verifier, h header, now time.Time) error {
	switch err := v.Verify(h.KeyID, t.toBeSigned(), t.Signature, now); {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrUnknownKey):
		return &Error{ErrUnknownKey, fmt.Sprintf("key %x is not in this keyring, or nothing that it signed can be alive", h.KeyID)}
	default:
		return &Error{ErrForged, fmt.Sprintf("key %x did not sign this", h.KeyID)}
	}
}

func (g Grant) timely(now time.Time) error {
	if !now.Before(g.NotAfter) {
		return &Error{ErrExpired, "at " + g.NotAfter.Format(time.RFC3339)}
	}
	if g.IssuedAt.Sub(now) > MaxClockSkew {
		return &Error{ErrNotYetValid, fmt.Sprintf("issued at %s, and it is %s here: one of the clocks is wrong",
			g.IssuedAt.Format(time.RFC3339), now.UTC().Format(time.RFC3339))}
	}
	return nil
}

// Status is what Inspect found.
type Status string

// The findings of Inspect.
const (
	Valid       Status = "valid"
	Expired     Status = "expired"
	NotYetValid Status = "not yet valid"
	Forged      Status = "forged"     // the signature is wrong, or of an unknown key
	Malformed   Status = "malformed"  // not a credential
	Unverified  Status = "unverified" // no keyring was given to check it with
)

// Inspection is the content of a password, and whether it is genuine.
type Inspection struct {
	Status Status
	Reason string // why it is not valid
	KeyID  string // hexadecimal; empty: malformed
	// Grant is the content, even if it is not genuine. It is nil if nothing can be
	// read.
	Grant *Grant
}

// Inspect parses a password for an operator. With a nil verifier it cannot tell whether
// the password is genuine. Use Check for decisions.
func Inspect(v *keyring.Verifier, password string, now time.Time) Inspection {
	t, h, reason := parseToken(password)
	if reason != "" {
		return Inspection{Status: Malformed, Reason: reason}
	}
	found := Inspection{Status: Valid, KeyID: hex.EncodeToString(h.KeyID)}
	g, reason := t.parseClaims()
	if reason != "" {
		found.Status, found.Reason = Malformed, reason
		return found
	}
	found.Grant = &g
	if v == nil {
		found.Status, found.Reason = Unverified, "no keyring to check the signature with"
		return found
	}
	_, err := Check(v, password, now)
	refused, ok := errors.AsType[*Error](err)
	if !ok {
		return found
	}
	found.Reason = refused.Reason
	switch refused.Err {
	case ErrExpired:
		found.Status = Expired
	case ErrNotYetValid:
		found.Status = NotYetValid
	default:
		found.Status = Forged
	}
	return found
}
