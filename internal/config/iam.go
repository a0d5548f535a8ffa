package config

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

// The limits of MaxSessionDuration, as in API_CreateRole.
const (
	leastSession = time.Hour
	mostSession  = 12 * time.Hour
)

// readIAM reads the iam section: named policies, groups, users, IAM roles and
// identity providers.
func readIAM(s *section, spec *directory.Spec) {
	seen := map[string]bool{}
	for _, p := range s.sections("policies") {
		spec.Policies = append(spec.Policies, directory.NamedPolicy{
			Name: p.iamName("policy", seen), Policy: p.policy("document", iam.IdentityPolicy),
		})
	}
	for _, g := range s.sections("groups") {
		spec.Groups = append(spec.Groups, directory.GroupSpec{
			Name:     g.iamName("group", seen),
			Inline:   g.policies("policies"),
			Attached: g.attached(seen),
		})
	}
	for _, u := range s.sections("users") {
		user := directory.UserSpec{
			Name:       u.iamName("user", seen),
			Path:       u.text("path"),
			AccessKeys: u.accessKeys(seen),
			Groups:     u.texts("groups"),
			Tags:       u.tags("tags"),
			Inline:     u.policies("policies"),
			Attached:   u.attached(seen),
			Boundary:   u.policy("permissions_boundary", iam.IdentityPolicy),
		}
		user.MFASeeds = u.mfaDevices(directory.MFASerialNumber(spec.Region, spec.Account, user.Name), seen)
		for _, group := range user.Groups {
			if !seen["group "+group] {
				u.errorf("groups", "group %q is not in iam.groups", group)
			}
		}
		spec.Users = append(spec.Users, user)
	}
	for _, r := range s.sections("roles") {
		spec.Roles = append(spec.Roles, directory.RoleSpec{
			Name:               r.iamName("role", seen),
			Path:               r.text("path"),
			Trust:              r.policy("trust_policy", iam.TrustPolicy),
			Tags:               r.tags("tags"),
			Inline:             r.policies("policies"),
			Attached:           r.attached(seen),
			Boundary:           r.policy("permissions_boundary", iam.IdentityPolicy),
			MaxSessionDuration: r.seconds("max_session_duration"),
		})
	}
	for _, p := range s.sections("oidc_providers") {
		spec.Providers = append(spec.Providers, p.provider(seen))
	}
}

// iamName reads the name of an IAM entity. As at AWS, names of one kind must differ in
// more than case.
func (s *section) iamName(kind string, seen map[string]bool) string {
	name := s.text("name")
	folded := "folded " + kind + " " + strings.ToLower(name)
	if name != "" && seen[folded] {
		s.errorf("name", "%s %q is duplicated", kind, name)
	}
	seen[folded] = true
	seen[kind+" "+name] = true
	return name
}

// attached reads the names of the policies attached to a user, a group or an IAM
// role.
func (s *section) attached(seen map[string]bool) []string {
	names := s.texts("attached_policies")
	for _, name := range names {
		if !seen["policy "+name] {
			s.errorf("attached_policies", "policy %q is not in iam.policies", name)
		}
	}
	return names
}

func (s *section) provider(seen map[string]bool) directory.Provider {
	p := directory.Provider{
		Issuer:    s.text("issuer"),
		Audiences: s.texts("audiences"),
		JWKSFile:  s.filePath("jwks_file"),
		CAFile:    s.filePath("ca_file"),
	}
	if u, err := url.Parse(p.Issuer); p.Issuer != "" && (err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "https" && !(u.Scheme == "http" && IsLoopback(u.Hostname()))) {
		s.errorf("issuer", "is %q, want an https URL without query (http on loopback only)", p.Issuer)
	}
	if p.Issuer != "" && seen["issuer "+p.Issuer] {
		s.errorf("issuer", "%q is duplicated", p.Issuer)
	}
	seen["issuer "+p.Issuer] = true
	if s.contents("jwks_file") != nil {
		if err := sts.CheckKeyFile(p.JWKSFile); err != nil {
			s.errorf("jwks_file", "%v", err)
		}
	}
	if pem := s.contents("ca_file"); pem != nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		s.errorf("ca_file", "%s has no certificate in PEM form", p.CAFile)
	}
	return p
}

// accessKeys reads the access keys of an IAM user.
func (s *section) accessKeys(seen map[string]bool) []directory.AccessKey {
	var keys []directory.AccessKey
	for _, k := range s.sections("access_keys") {
		id := k.text("id")
		if strings.HasPrefix(id, "ASIA") {
			k.errorf("id", "begins with ASIA, which marks temporary access keys; a long-term one begins with AKIA")
		}
		if id != "" && seen["key "+id] {
			k.errorf("id", "%q is duplicated", id)
		}
		seen["key "+id] = true
		secret, from := k.secret("secret")
		k.strong(from, secret, "anyone who captures one signed request can guess a short secret offline; AWS's have 40")
		keys = append(keys, directory.AccessKey{ID: id, Secret: secret})
	}
	return keys
}

// A secret shorter than leastSecret characters is refused; one shorter than fairSecret gets a
// warning.
const (
	leastSecret = 8
	fairSecret  = 16
)

// placeholder matches a value that consists only of placeholders that a template should have
// replaced: ${NAME}, $NAME, $(NAME), {{ name }}, <name>, %NAME%, @NAME@, __NAME__.
var placeholder = regexp.MustCompile(`^\s*((\$\{[^{}]*\}|\$[A-Z_][A-Z0-9_]*|\$\([^()]*\)|\{\{.*\}\}|<[^<>]*>|` +
	`%[A-Z][A-Z0-9_]*%|@[A-Z][A-Z0-9_]*@|__[A-Z][A-Z0-9_]*__)\s*)+$`)

// isPlaceholder is the reason in an error about a placeholder. Without this error such a
// value would silently have no effect, since no group has that name and no token that
// audience.
const isPlaceholder = "a placeholder that no template has filled in: write a value"

// strong reports a secret that is too easy to guess; why describes the attack.
func (s *section) strong(name string, secret keyring.Secret, why string) {
	n := len(secret)
	characters := fmt.Sprintf("%d characters", n)
	if n == 1 {
		characters = "1 character"
	}
	switch {
	case name == "": // reported already
	case n < leastSecret:
		s.errorf(name, "has %s, want at least %d: %s", characters, leastSecret, why)
	case n < fairSecret:
		s.warnf(name, "has only %s: %s", characters, why)
	}
}

// mfaDevices reads the MFA devices of an IAM user. Only one device may omit its serial
// number. Serial numbers must be unique, because a caller names the device that a code comes
// from.
func (s *section) mfaDevices(unnamed string, seen map[string]bool) []directory.MFADevice {
	var devices []directory.MFADevice
	for _, d := range s.sections("mfa_devices") {
		device := directory.MFADevice{SerialNumber: d.textOr("serial_number", unnamed)}
		switch {
		case seen["device "+device.SerialNumber] && d.has("serial_number"):
			d.errorf("serial_number", "%q is duplicated", device.SerialNumber)
		case seen["device "+device.SerialNumber]:
			d.errorf("serial_number", "is required: another device is %q already", unnamed)
		}
		seen["device "+device.SerialNumber] = true
		seed, from := d.secret("seed")
		device.Seed = keyring.Secret(strings.ToUpper(strings.ReplaceAll(seed.Reveal(), " ", "")))
		if from != "" && sts.CheckSeed(device.Seed) != nil {
			d.errorf(from, "is not the key of an MFA device in base32 (letters and the digits 2 to 7)")
		} else {
			d.strong(from, device.Seed, "anyone who sees one code can guess a short key offline; most have 32 or more")
		}
		devices = append(devices, device)
	}
	return devices
}
