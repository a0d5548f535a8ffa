package config

import (
	"net/url"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
)

// SignIn configures sign-in at a browser. It is empty if sign-in is not configured.
type SignIn struct {
	URL          string // the API's URL for browsers
	Issuer       string // one of iam.oidc_providers
	ClientID     string
	ClientSecret keyring.Secret // empty: none
	Scopes       []string
	SessionName  string // the claim that names the session
	Duration     time.Duration
}

// Given reports whether sign-in is configured.
func (i *SignIn) Given() bool { return i.URL != "" }

var signInKeys = join([]key{
	{name: "url", value: text, required: true, change: live,
		doc: "The URL at which browsers and tools reach the API: `https` and a host, with a port if it is another than 443, and no path " +
			"(`http` on loopback only). Register `URL/sign-in/callback` with the provider."},
	{name: "issuer", value: text, required: true, change: live,
		doc: "The provider that people sign in at: an `issuer` of `iam.oidc_providers`."},
	{name: "client_id", value: text, required: true, change: live,
		doc: "What the provider calls Daypass. It has to be among the provider's `audiences`. Tokens for it are for signing in: " +
			"`AssumeRoleWithWebIdentity` refuses them."},
	{name: "scopes", value: texts, change: live, unset: "openid, profile, email",
		doc: "What to ask the provider for. `openid` has to be among them; some providers send groups only when they are asked for them."},
	{name: "session_name", value: text, absent: "email", change: live,
		doc: "The claim that becomes the role session name, which the audit log and `aws:userid` have. Take one that only the provider can set, " +
			"and that two people never share. An `email` is refused where `email_verified` is false."},
	{name: "duration", value: seconds, absent: "12h", least: 900, most: inSeconds(keyring.SignInLifetime), change: live,
		doc: "How long a person stays signed in. Within it their keys, of 15 minutes, are refreshed in silence, and the trust policy decides each time."},
}, secretKeys("client_secret", "What Daypass proves to the provider that it is the client with", "For development.", false, live))

func (i *SignIn) read(s *section, spec *directory.Spec) {
	*i = SignIn{
		URL: s.text("url"), Issuer: s.text("issuer"), ClientID: s.text("client_id"), Scopes: s.texts("scopes"),
		SessionName: s.text("session_name"), Duration: s.seconds("duration"),
	}
	i.ClientSecret, _ = s.secret("client_secret")
	u, err := url.Parse(i.URL)
	if i.URL != "" && (err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.String() != i.URL ||
		u.Scheme != "https" && !(u.Scheme == "http" && IsLoopback(u.Hostname()))) {
		s.errorf("url", "is %q, want an https URL without a path, such as https://daypass.example.com (http on loopback only)", i.URL)
	}
	if !s.has("scopes") {
		i.Scopes = []string{"openid", "profile", "email"}
	} else if !slices.Contains(i.Scopes, "openid") {
		s.errorf("scopes", "has no openid, without which the provider sends no ID token: add it")
	}
	at := slices.IndexFunc(spec.Providers, func(p directory.Provider) bool { return p.Issuer == i.Issuer })
	switch {
	case i.Issuer == "" || i.ClientID == "":
	case at < 0:
		s.errorf("issuer", "%q is not an issuer of iam.oidc_providers: add it there", i.Issuer)
	case !slices.Contains(spec.Providers[at].Audiences, i.ClientID):
		s.errorf("client_id", "%q is not among the audiences of the provider in iam.oidc_providers: add it there, since the tokens of people who sign in are for it", i.ClientID)
	}
}
