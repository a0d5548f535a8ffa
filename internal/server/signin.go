package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/console"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/signin"
	"github.com/daypass/daypass/internal/sts"
)

// newSignIn makes the sign-in handler for the configuration in force.
func (s *service) newSignIn() *signin.Handler {
	return signin.New(signin.Config{
		Settings:  s.signInSettings,
		Directory: func() *directory.Directory { return s.live.Load().cfg.Directory },
		Keyring:   s.keys.Current,
		Authority: signInAuthority{s.api},
		UseOnce: func(ctx context.Context, id []byte, until time.Time) error {
			err := s.revoked.UseOnce(ctx, id, until)
			if errors.Is(err, registry.ErrUsed) {
				return signin.ErrUsed
			}
			return err
		},
		Used:       s.revoked.Used,
		Rendezvous: s.revoked.Rendezvous,

		Log: s.log,
		Now: s.opts.Now,
	})
}

func (s *service) signInSettings() *signin.Settings {
	given := &s.live.Load().cfg.SignIn
	if !given.Given() {
		return nil
	}
	return &signin.Settings{
		URL: given.URL, Issuer: given.Issuer, ClientID: given.ClientID, ClientSecret: given.ClientSecret,
		Scopes: given.Scopes, SessionClaim: given.SessionName, Duration: given.Duration,
		Console: s.live.Load().cfg.Console,
	}
}

// forSignIn reports whether a provider's token is for the client with which people sign in.
func (s *service) forSignIn(issuer string, audience []string) bool {
	given := &s.live.Load().cfg.SignIn
	return given.Given() && issuer == given.Issuer && slices.Contains(audience, given.ClientID)
}

// signInAuthority adapts the API to package signin.
type signInAuthority struct{ *api.Handler }

func (a signInAuthority) Roles(r *http.Request, who *sts.Person) ([]signin.Role, error) {
	found, err := a.SignInRoles(r, who)
	if err != nil {
		return nil, refusal(err)
	}
	roles := make([]signin.Role, len(found))
	for i, role := range found {
		roles[i] = signin.Role{Name: role.Name, ID: role.ID, Open: role.Open, Unmet: role.Unmet}
	}
	return roles, nil
}

func (a signInAuthority) Assume(r *http.Request, who *sts.Person, in signin.Assumption) (*signin.Keys, error) {
	keys, err := a.SignInAs(r, who, api.SignInCall(in))
	if err != nil {
		return nil, refusal(err)
	}
	return &signin.Keys{Credentials: keys.Credentials, ARN: keys.ARN}, nil
}

func (a signInAuthority) SignedIn(r *http.Request, who *sts.Person, in signin.Check) error {
	if err := a.Handler.SignedIn(r, who, api.SignInCheck(in)); err != nil {
		return refusal(err)
	}
	return nil
}

func (a signInAuthority) Enter(r *http.Request, s *signin.Session) error {
	if err := a.ConsoleEnter(r, console.OfSession(s)); err != nil {
		return refusal(err)
	}
	return nil
}

func (a signInAuthority) Verify(r *http.Request, token string) (*sts.WebIdentity, error) {
	return a.VerifyIdentity(r, token)
}

// refusal translates an error of the API for package signin.
func refusal(err error) error {
	var answer *awsquery.Error
	switch {
	case !errors.As(err, &answer):
		return err
	case errors.Is(err, api.ErrSignedOut), errors.Is(err, api.ErrConsoleEnded):
		return &signin.Refusal{Kind: signin.SignedOut, Message: answer.Message}
	case answer.Code == "Throttling":
		return &signin.Refusal{Kind: signin.TooMany, Message: "You sent too many requests at once."}
	case answer.Status >= http.StatusInternalServerError:
		return &signin.Refusal{Kind: signin.Unavailable, Message: answer.Message}
	}
	return &signin.Refusal{Kind: signin.Denied, Message: answer.Message}
}
