package doctor

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/signin"
	"github.com/daypass/daypass/internal/sts"
)

// signIn checks the identity provider that people sign in at, and the URL at which their
// browsers reach this server.
func (o *Operator) signIn(ctx context.Context, r *Report, cfg *config.Config) {
	const about = "sign-in"
	given := &cfg.SignIn
	if !given.Given() {
		return
	}
	o.provider(ctx, r, cfg)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}}
	answer, err := probe(ctx, given.URL+"/healthz", client)
	switch {
	case err != nil && strings.Contains(err.Error(), "unknown authority"):
		r.warn(about, "browsers, and ca_bundle of people's profiles, have to know its CA", "the certificate at %s is not signed by one of this machine's authorities", given.URL)
	case err != nil:
		r.warn(about, "if people cannot reach it either: look at sign_in.url, and at the balancer in front", "%s cannot be reached from this machine: %v", given.URL, err)
	case answer.status != http.StatusOK:
		r.fail(about, "look at sign_in.url, and at the proxy in front", "%s answers %d to /healthz: it does not lead to this server", given.URL, answer.status)
	default:
		r.ok(about, "people reach the server at %s", given.URL)
	}
}

func (o *Operator) provider(ctx context.Context, r *Report, cfg *config.Config) {
	const about = "sign-in"
	given := &cfg.SignIn
	provider, ok := cfg.Directory.Provider(given.Issuer)
	if !ok {
		return // configuration has reported it
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := signin.Discover(ctx, provider)
	if err != nil {
		r.fail(about, "look at issuer and ca_file of the provider, and at the way to it (a proxy, a firewall?): curl ISSUER/.well-known/openid-configuration", "people cannot sign in: %v", plainly(err))
		return
	}
	r.ok(about, "the provider %s answers", given.Issuer)
	if len(found.ChallengeMethods) > 0 && !slices.Contains(found.ChallengeMethods, "S256") {
		r.fail(about, "allow PKCE with S256 at the provider", "the provider does not offer PKCE with S256, which every sign-in uses")
	}
	for _, scope := range given.Scopes {
		if len(found.Scopes) > 0 && !slices.Contains(found.Scopes, scope) {
			r.warn(about, "look at sign_in.scopes, and at the provider's documentation", "the provider does not list the scope %s", scope)
		}
	}
	o.providerClock(ctx, r, provider.Issuer, provider.CAFile)
}

// providerClock compares this machine's clock with the provider's, which sets the times in
// tokens.
func (o *Operator) providerClock(ctx context.Context, r *Report, issuer, caFile string) {
	client, err := sts.ProviderClient(caFile)
	if err != nil {
		return
	}
	defer client.CloseIdleConnections()
	before := o.Now()
	if answer, err := probe(ctx, issuer+"/.well-known/openid-configuration", client); err == nil && !answer.date.IsZero() {
		r.clock("the provider", answer.date, before.Add(o.Now().Sub(before)/2))
	}
}
