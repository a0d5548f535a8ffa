package sts

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Person is someone who has signed in at an identity provider.
type Person struct {
	Identity *WebIdentity
	// Session is the role session name, see SessionName.
	Session string
	// Since is when they signed in.
	Since time.Time
}

// ErrSessionName means that a token does not say what to call its holder's sessions.
var ErrSessionName = errors.New("the token has no claim that can be the role session name")

// sessionNames matches the session names that AssumeRole accepts.
var sessionNames = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{2,64}$`)

// SessionName returns the role session name of the token's holder, which appears in the audit
// log, the session's ARN and aws:userid. It is the value of the configured claim. No character
// of it is replaced, so two people share a name only if their provider gave it to both. An email
// address that the provider has not verified is refused, because its holder could have chosen
// someone else's.
func (w *WebIdentity) SessionName(claim string) (string, error) {
	name, given := w.Claim(claim)
	unverified := slices.ContainsFunc(w.Claims, func(c Claim) bool {
		return c.Name == "email_verified" && (c.List || c.Values[0] != "true")
	})
	switch {
	case !given:
		return "", fmt.Errorf("%w: it has no claim %q", ErrSessionName, claim)
	case claim == "email" && unverified:
		return "", fmt.Errorf("%w: the provider has not verified the email address", ErrSessionName)
	case !sessionNames.MatchString(name):
		return "", fmt.Errorf("%w: claim %q is not 2 to 64 letters, digits or characters of _+=,.@-", ErrSessionName, claim)
	}
	return name, nil
}
