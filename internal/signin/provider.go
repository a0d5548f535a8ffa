package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/sts"
)

const (
	// discoveryFresh is how long the discovered endpoints are used.
	discoveryFresh = 15 * time.Minute
	// discoveryPause is the pause between the end of a discovery that failed and the next one.
	discoveryPause = 5 * time.Second
	// providerTimeout bounds each exchange with the provider.
	providerTimeout = 10 * time.Second
	// clockStep is how far the clock may be set back before the endpoints count as old. A request
	// that began before the discovery, and waited for it, is within that.
	clockStep = time.Minute
	// maxToken is the longest ID token.
	maxToken = maxClaims
)

// providers caches the endpoints of providers. The zero value is ready.
type providers struct {
	mu    sync.Mutex // guards the fields below, and is held while the provider is asked
	of    providerKey
	found oauth2.Endpoint
	err   error
	until time.Time // of found or err
}

type providerKey struct{ issuer, caFile string }

// endpoint discovers the provider's endpoints. Requests that arrive during the discovery wait
// for its result; Handler.outside bounds their number.
func (p *providers) endpoint(ctx context.Context, provider *directory.Provider, now time.Time, patience time.Duration) (oauth2.Endpoint, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := providerKey{provider.Issuer, provider.CAFile}
	if p.of == of && now.Before(p.until) && p.until.Sub(now) <= discoveryFresh+clockStep {
		return p.found, p.err
	}
	p.of, p.until = of, now.Add(discoveryFresh)
	// Other requests wait for the result, so the discovery does not end with this request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	began := time.Now()
	var found Discovery
	if found, p.err = Discover(ctx, provider); p.err != nil {
		p.until = now.Add(time.Since(began) + discoveryPause)
	}
	p.found = found.Endpoint
	return p.found, p.err
}

// Discovery is what a provider says about itself (OpenID Connect Discovery 1.0, section 3).
type Discovery struct {
	Endpoint oauth2.Endpoint
	// Scopes and ChallengeMethods are empty if the provider does not list them.
	Scopes           []string
	ChallengeMethods []string // of PKCE
}

// Discover asks a provider for its endpoints. They have to be https URLs if the issuer is one.
func Discover(ctx context.Context, provider *directory.Provider) (Discovery, error) {
	client, err := sts.ProviderClient(provider.CAFile)
	if err != nil {
		return Discovery{}, err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	document, err := oidc.NewProvider(oidc.ClientContext(ctx, client), provider.Issuer)
	if err != nil {
		return Discovery{}, fmt.Errorf("discovering %s: %w", provider.Issuer, err)
	}
	endpoint := document.Endpoint()
	for _, address := range []string{endpoint.AuthURL, endpoint.TokenURL} {
		if !strings.HasPrefix(address, "https://") && (strings.HasPrefix(provider.Issuer, "https://") || !strings.HasPrefix(address, "http://")) {
			return Discovery{}, fmt.Errorf("discovering %s: an endpoint is not an https URL", provider.Issuer)
		}
	}
	var more struct {
		Scopes           []string `json:"scopes_supported"`
		ChallengeMethods []string `json:"code_challenge_methods_supported"`
	}
	if err := document.Claims(&more); err != nil {
		return Discovery{}, fmt.Errorf("discovering %s: %w", provider.Issuer, err)
	}
	return Discovery{endpoint, more.Scopes, more.ChallengeMethods}, nil
}

// client returns our OAuth client at the provider.
func (e *exchange) client() (*oauth2.Config, *directory.Provider, error) {
	provider, ok := e.directory.Provider(e.settings.Issuer)
	if !ok {
		return nil, nil, errors.New("the provider is not configured any more")
	}
	endpoint, err := e.providers.endpoint(e.r.Context(), provider, e.now, e.patience)
	if err != nil {
		return nil, nil, err
	}
	return &oauth2.Config{
		ClientID:     e.settings.ClientID,
		ClientSecret: e.settings.ClientSecret.Reveal(),
		Endpoint:     endpoint,
		RedirectURL:  e.settings.URL + pathCallback,
		Scopes:       e.settings.Scopes,
	}, provider, nil
}

// idToken exchanges the provider's code for an ID token.
func (e *exchange) idToken(code, verifier string) (string, error) {
	client, provider, err := e.client()
	if err != nil {
		return "", err
	}
	transport, err := sts.ProviderClient(provider.CAFile)
	if err != nil {
		return "", err
	}
	defer transport.CloseIdleConnections()
	// The client secret must not be sent along a redirect.
	transport.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx, cancel := context.WithTimeout(e.r.Context(), e.patience)
	defer cancel()
	token, err := client.Exchange(context.WithValue(ctx, oauth2.HTTPClient, transport), code, oauth2.VerifierOption(verifier))
	if err != nil {
		return "", fmt.Errorf("exchanging the code: %w", err)
	}
	text, _ := token.Extra("id_token").(string)
	switch {
	case text == "":
		return "", errors.New("the provider has sent no ID token: is openid among sign_in.scopes?")
	case len(text) > maxToken:
		return "", fmt.Errorf("the ID token has %d characters, more than %d", len(text), maxToken)
	}
	return text, nil
}
