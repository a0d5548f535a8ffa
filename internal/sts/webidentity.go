package sts

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/daypass/daypass/internal/directory"
)

// Ways in which a web identity token fails.
var (
	ErrNotJWT        = errors.New("not a JSON web token")
	ErrNoProvider    = errors.New("no identity provider has this issuer")
	ErrBadSignature  = errors.New("no key of the identity provider has made the signature")
	ErrBadClaims     = errors.New("a claim is missing or makes no sense")
	ErrAudience      = errors.New("not for any audience of the identity provider")
	ErrTokenExpired  = errors.New("web identity token is expired")
	ErrTokenTooEarly = errors.New("web identity token is from the future")
	// ErrUnreachable means that the provider's keys cannot be had. It is the one
	// that is worth another try.
	ErrUnreachable = errors.New("identity provider's keys cannot be read")
)

// webSkew is how far ahead of ours the clock of an identity provider may be. An
// expiry knows no such tolerance.
const webSkew = 5 * time.Minute

// The claims that AWS gives a meaning: IAM User Guide, id_session-tags and
// id_credentials_temp_control-access_monitor.
const (
	claimTags           = "https://aws.amazon.com/tags"
	claimSourceIdentity = "https://aws.amazon.com/source_identity"
)

// WebIdentity is what a verified token of an identity provider says.
type WebIdentity struct {
	Provider *directory.Provider
	Subject  string
	Audience []string
	// Claims are all claims that can be condition keys: text, numbers and truth
	// values, and lists of them.
	Claims []Claim
	// Tags, Transitive and SourceIdentity are for the session. They are as the
	// token has them, and not checked yet.
	Tags           []Tag
	Transitive     []string
	SourceIdentity string
}

// Claim is one claim as a condition key has it.
type Claim struct {
	Name   string
	Values []string
	List   bool
}

// Federated is what the role session keeps of it.
func (w *WebIdentity) Federated(account string) *Federated {
	f := &Federated{ProviderARN: w.Provider.ARN(account), Provider: w.Provider.Name(), Subject: w.Subject, Audience: w.Audience}
	for _, c := range w.Claims {
		if c.Name == "amr" {
			f.AMR = c.Values
		}
	}
	return f
}

// WebIdentities verifies the tokens of OpenID Connect providers. Its zero value is
// ready. It is safe for concurrent use.
type WebIdentities struct {
	mu      sync.Mutex
	sources map[sourceKey]*keySource // guarded by mu
}

// sourceKey is all of a provider that its keys depend on: after a reload that
// changed none of it, the keys are still good.
type sourceKey struct{ issuer, jwksFile, caFile string }

// Verify finds out who a token speaks for. It believes nothing of the token before
// the signature is found to be right, but the name of its issuer, which must be one
// of the directory's. The errors wrap one of this file's.
func (w *WebIdentities) Verify(ctx context.Context, d *directory.Directory, now time.Time, token string) (*WebIdentity, error) {
	issuer, err := issuerOf(token)
	if err != nil {
		return nil, err
	}
	provider, ok := d.Provider(issuer)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoProvider, issuer)
	}
	keys := &attempt{source: w.source(provider), now: now}
	id, err := oidc.NewVerifier(issuer, keys, &oidc.Config{
		SupportedSigningAlgs: signingAlgorithms,
		SkipClientIDCheck:    true, // several audiences: below
		SkipExpiryCheck:      true, // below, and for nbf
	}).Verify(ctx, token)
	switch {
	case keys.err != nil:
		return nil, keys.err
	case err != nil && !keys.verified:
		return nil, fmt.Errorf("%w: %w", ErrNotJWT, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrBadClaims, err)
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadClaims, err)
	}
	if err := checkTimes(claims, now); err != nil {
		return nil, err
	}
	if id.Subject == "" {
		return nil, fmt.Errorf("%w: sub", ErrBadClaims)
	}
	if !slices.ContainsFunc(id.Audience, func(a string) bool { return slices.Contains(provider.Audiences, a) }) {
		return nil, ErrAudience
	}
	identity := &WebIdentity{Provider: provider, Subject: id.Subject, Audience: id.Audience, Claims: conditionKeys(claims)}
	return identity, identity.readSession(claims)
}

// issuerOf reads the issuer from a token that nobody has verified.
func issuerOf(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", ErrNotJWT
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", ErrNotJWT
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", ErrNotJWT
	}
	return claims.Issuer, nil
}

// checkTimes holds exp, nbf and iat against the clock. exp has to be there.
func checkTimes(claims map[string]any, now time.Time) error {
	expiry, ok := claims["exp"].(float64)
	if !ok {
		return fmt.Errorf("%w: exp", ErrBadClaims)
	}
	seconds := float64(now.UnixNano()) / 1e9
	if seconds >= expiry {
		return fmt.Errorf("%w: %d is not before %.0f", ErrTokenExpired, now.Unix(), expiry)
	}
	for _, name := range []string{"nbf", "iat"} {
		value, there := claims[name]
		if !there {
			continue
		}
		from, ok := value.(float64)
		if !ok {
			return fmt.Errorf("%w: %s", ErrBadClaims, name)
		}
		if seconds+webSkew.Seconds() < from {
			return fmt.Errorf("%w: %s", ErrTokenTooEarly, name)
		}
	}
	return nil
}

// conditionKeys are the claims that a condition can compare with, by name.
func conditionKeys(claims map[string]any) []Claim {
	var keys []Claim
	for name, value := range claims {
		if list, ok := value.([]any); ok {
			c := Claim{Name: name, List: true}
			for _, one := range list {
				if text, ok := claimText(one); ok {
					c.Values = append(c.Values, text)
				}
			}
			if name == "aud" && len(c.Values) == 1 {
				c.List = false
			}
			keys = append(keys, c)
		} else if text, ok := claimText(value); ok {
			keys = append(keys, Claim{Name: name, Values: []string{text}})
		}
	}
	slices.SortFunc(keys, func(a, b Claim) int { return strings.Compare(a.Name, b.Name) })
	return keys
}

func claimText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// readSession reads the claims that set up the session.
func (w *WebIdentity) readSession(claims map[string]any) error {
	if value, there := claims[claimSourceIdentity]; there {
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("%w: %s", ErrBadClaims, claimSourceIdentity)
		}
		w.SourceIdentity = text
	}
	value, there := claims[claimTags]
	if !there {
		return nil
	}
	var tags struct {
		Principal  map[string][]string `json:"principal_tags"`
		Transitive []string            `json:"transitive_tag_keys"`
	}
	// Through JSON again, for the types.
	data, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(data, &tags)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", ErrBadClaims, claimTags)
	}
	for key, values := range tags.Principal {
		if len(values) != 1 {
			return fmt.Errorf("%w: %s: a tag has one value", ErrBadClaims, claimTags)
		}
		w.Tags = append(w.Tags, Tag{Key: key, Value: values[0]})
	}
	slices.SortFunc(w.Tags, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
	w.Transitive = tags.Transitive
	return nil
}
