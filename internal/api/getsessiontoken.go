package api

import (
	"errors"
	"net/http"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/sts"
)

// Durations of GetSessionToken, in seconds.
const (
	maxUserSession     = 129600
	defaultUserSession = 43200
)

// getSessionToken gives an IAM user a temporary access key, with or without a one-time
// password: STS API Reference, GetSessionToken.
type getSessionToken struct{ seconds int }

func readGetSessionToken(r *reader) *getSessionToken {
	p := &getSessionToken{seconds: r.seconds(minSession, maxUserSession, defaultUserSession)}
	if r.caller.Session != nil {
		r.fail(errAccessDenied("Cannot call GetSessionToken with session credentials"))
	}
	r.readMFA()
	return p
}

func (p *getSessionToken) act(c *call) (awsquery.Result, error) {
	u := c.caller.User
	s := &sts.Session{Kind: sts.UserSession, Account: c.directory.Account, Name: u.Name, PrincipalID: u.ID, Origin: c.origin()}
	if c.mfaChecked {
		s.MFA = c.now
	}
	credentials, err := c.issue(s, p.seconds)
	if err != nil {
		return nil, err
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) { encodeCredentials(e, credentials) }), nil
}

// readMFA reads SerialNumber and TokenCode and checks the code if they are given. A
// wrong code is refused before any policy is evaluated, because condition keys depend
// on it.
func (r *reader) readMFA() {
	serial, named := r.constrained("SerialNumber", serialNumber)
	code, given := r.hidden("TokenCode", tokenCode)
	switch {
	case r.err != nil || !named && !given:
		return
	case !named || !given:
		r.fail(errAccessDenied("MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."))
		return
	}
	if u := r.caller.User; u != nil {
		for _, device := range u.MFADevices {
			if device.SerialNumber != serial {
				continue
			}
			err := r.handler.mfa.Check(r.now, serial, device.Seed, code)
			switch {
			case err == nil:
				r.mfaChecked = true
			case errors.Is(err, sts.ErrWrongCode), errors.Is(err, sts.ErrTooMany):
				r.fail(&awsquery.Error{Code: "AccessDenied", Status: http.StatusForbidden, Cause: err,
					Message: "MultiFactorAuthentication failed with invalid MFA one time pass code."})
			default:
				r.fail(err)
			}
			return
		}
	}
	r.fail(errAccessDenied("MultiFactorAuthentication failed, unable to validate MFA code.  " +
		"Please verify your MFA serial number is valid and associated with this user."))
}
