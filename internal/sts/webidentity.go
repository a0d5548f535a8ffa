package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// Ways in which a web identity token fails.
var (
	ErrNotJWT        = errors.New("not a JSON web token")
	ErrAlgorithm     = errors.New("web identity token is signed with an algorithm that is not accepted")
	ErrNoProvider    = errors.New("no identity provider has this issuer")
	ErrBadSignature  = errors.New("no key of the identity provider has made the signature")
	ErrBadClaims     = errors.New("a claim is missing, is duplicated or makes no sense")
	ErrAudience      = errors.New("not for any audience of the identity provider")
	ErrTokenExpired  = errors.New("web identity token is expired")
	ErrTokenTooEarly = errors.New("web identity token is from the future")
	// ErrUnreachable means that the provider's keys are not available. It is the only
	// error after which a client should try again.
	ErrUnreachable = errors.New("identity provider's keys cannot be read")
)

// webSkew is how far an identity provider's clock may be ahead of ours, for nbf and iat, which only
// mark the beginning. The expiry has no tolerance: AWS accepts a token for five more minutes, but a
// stolen token would then work longer too.
const webSkew = 5 * time.Minute

// The claims that AWS gives a meaning: IAM User Guide, id_session-tags and
// id_credentials_temp_control-access_monitor.
const (
	claimTags           = "https://aws.amazon.com/tags"
	claimSourceIdentity = "https://aws.amazon.com/source_identity"
)

// WebIdentity is the content of a verified token of an identity provider.
type WebIdentity struct {
	Provider *directory.Provider
	Subject  string
	// Audience is azp if it is set, otherwise aud.
	Audience []string
	// Claims are all claims that can be condition keys: texts, numbers as written,
	// booleans, and lists of them.
	Claims []Claim
	// Tags, Transitive and SourceIdentity are for the session. They are as the
	// token has them, and not checked yet.
	Tags           []Tag
	Transitive     []string
	SourceIdentity string
	// Payload is the token's payload, for Reread.
	Payload []byte
}

// Claim is one claim as a condition key has it.
type Claim struct {
	Name   string
	Values []string
	List   bool
}

// Federated returns the part that the role session keeps.
func (w *WebIdentity) Federated(d *directory.Directory) *Federated {
	f := &Federated{ProviderARN: d.ProviderARN(w.Provider), Provider: w.Provider.Name(), Subject: w.Subject, Audience: w.Audience}
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
	// Changed is called once when a provider's keys can no longer be read, when none
	// are left, and when there are keys again. It must not block. Optional; set it
	// before the first use.
	Changed func(KeyState)

	mu      sync.Mutex
	sources map[sourceKey]*keySource // guarded by mu
}

// sourceKey is everything that a provider's keys depend on. The keys are kept over a reload that
// does not change the sourceKey.
type sourceKey struct{ issuer, jwksFile, caFile string }

// Verify returns the identity in a token. Before the signature is verified it uses only the name of
// the issuer, which must be one of the directory's. Every error wraps one of the errors of this
// file; an error about the algorithm is an *AlgorithmError.
func (w *WebIdentities) Verify(ctx context.Context, d *directory.Directory, now time.Time, token string) (*WebIdentity, error) {
	jws, err := jose.ParseSignedCompact(token, signingAlgorithms)
	if err != nil {
		if other := algorithmError(err); other != nil {
			return nil, other
		}
		return nil, fmt.Errorf("%w: %w", ErrNotJWT, err)
	}
	payload := jws.UnsafePayloadWithoutVerification()
	c, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	provider, err := providerOf(d, c)
	if err != nil {
		return nil, err
	}
	if err := w.source(provider).verify(ctx, now, jws); err != nil {
		return nil, err
	}
	if err := checkTimes(c, now); err != nil {
		return nil, err
	}
	return identityOf(provider, c, payload)
}

// Reread is Verify for the payload of a token that was verified when its holder signed in, and
// has been kept sealed since. It does not check the signature and the times again, but it does
// check that the directory still has the provider and the audience.
func Reread(d *directory.Directory, payload []byte) (*WebIdentity, error) {
	c, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	provider, err := providerOf(d, c)
	if err != nil {
		return nil, err
	}
	return identityOf(provider, c, payload)
}

func providerOf(d *directory.Directory, c claims) (*directory.Provider, error) {
	issuer, _ := c["iss"].(string)
	provider, ok := d.Provider(issuer)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoProvider, issuer)
	}
	return provider, nil
}

func identityOf(provider *directory.Provider, c claims, payload []byte) (*WebIdentity, error) {
	identity := &WebIdentity{Provider: provider, Payload: payload}
	if identity.Subject, _ = c["sub"].(string); identity.Subject == "" {
		return nil, fmt.Errorf("%w: sub", ErrBadClaims)
	}
	if err := identity.readAudience(c); err != nil {
		return nil, err
	}
	return identity, identity.readSession(c)
}

// Claim returns the value of a claim that is not a list.
func (w *WebIdentity) Claim(name string) (string, bool) {
	for _, c := range w.Claims {
		if c.Name == name && !c.List {
			return c.Values[0], true
		}
	}
	return "", false
}

// ClaimedIssuer returns the issuer that a token names, without verifying it, or "".
func ClaimedIssuer(token string) string {
	jws, err := jose.ParseSignedCompact(token, signingAlgorithms)
	if err != nil {
		return ""
	}
	var claimed struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &claimed) != nil {
		return ""
	}
	return claimed.Issuer
}

// readAudience determines the audience of a token and sets the condition keys. As at AWS, the
// audience and the key aud are azp if the token has it, and oaud is the claim aud (IAM User
// Guide, reference_policies_iam-condition-keys). Both must be configured audiences, so a service
// that receives a token meant for it cannot use it here.
func (w *WebIdentity) readAudience(c claims) error {
	aud, err := c.audience()
	if err != nil {
		return err
	}
	azp, err := c.party()
	if err != nil {
		return err
	}
	known := func(audience string) bool { return slices.Contains(w.Provider.Audiences, audience) }
	if !slices.ContainsFunc(aud, known) || azp != "" && !known(azp) {
		return ErrAudience
	}
	w.Audience = aud
	if azp != "" {
		w.Audience = []string{azp}
	}
	w.Claims = append(conditionKeys(c), audienceKey("aud", w.Audience), audienceKey("oaud", aud))
	return nil
}

func audienceKey(name string, audience []string) Claim {
	return Claim{Name: name, Values: audience, List: len(audience) > 1}
}

// checkTimes checks exp, which is required, nbf and iat against the clock.
func checkTimes(c claims, now time.Time) error {
	expiry, there, err := c.seconds("exp")
	switch {
	case err != nil:
		return err
	case !there:
		return fmt.Errorf("%w: exp", ErrBadClaims)
	case now.Unix() >= expiry:
		return fmt.Errorf("%w: %d is not before %d", ErrTokenExpired, now.Unix(), expiry)
	}
	for _, name := range []string{"nbf", "iat"} {
		from, there, err := c.seconds(name)
		if err != nil {
			return err
		}
		if there && now.Add(webSkew).Unix() < from {
			return fmt.Errorf("%w: %s", ErrTokenTooEarly, name)
		}
	}
	return nil
}

// conditionKeys returns the claims that a condition can compare with, by name, except
// for the audience. A claim named oaud is left out.
func conditionKeys(c claims) []Claim {
	var keys []Claim
	for name, value := range c {
		if key := iam.FoldKey(name); key == "aud" || key == "oaud" {
			continue
		}
		if list, ok := value.([]any); ok {
			c := Claim{Name: name, List: true}
			for _, one := range list {
				if text, ok := claimText(one); ok {
					c.Values = append(c.Values, text)
				}
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
	case json.Number:
		return v.String(), true
	}
	return "", false
}

// readSession reads the claims that set up the session.
func (w *WebIdentity) readSession(c claims) error {
	if value, there := c[claimSourceIdentity]; there {
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("%w: %s", ErrBadClaims, claimSourceIdentity)
		}
		w.SourceIdentity = text
	}
	flat, err := w.readFlatTags(c)
	switch {
	case err != nil || c[claimTags] == nil:
		return err
	case flat:
		return fmt.Errorf("%w: %s: in both of its forms", ErrBadClaims, claimTags)
	}
	bad := fmt.Errorf("%w: %s", ErrBadClaims, claimTags)
	claim, ok := c[claimTags].(map[string]any)
	if !ok {
		return bad
	}
	tags, ok := claim["principal_tags"].(map[string]any)
	if !ok && claim["principal_tags"] != nil {
		return bad
	}
	for key, value := range tags {
		values, ok := texts(value)
		if !ok || len(values) != 1 {
			return fmt.Errorf("%w: a tag has a list of one text", bad)
		}
		w.Tags = append(w.Tags, Tag{Key: key, Value: values[0]})
	}
	slices.SortFunc(w.Tags, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
	if w.Transitive, ok = texts(claim["transitive_tag_keys"]); !ok {
		return bad
	}
	return nil
}
