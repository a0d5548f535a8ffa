package config

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

// duration limits of a role session, API_CreateRole.
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

// iamName reads the name of something that IAM names; names of one kind are
// told apart without regard to case, as at AWS.
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

// policyWarnings collects what is valid in the policies and probably not meant. It
// goes by what was read, so that it works on a configuration with faults, too.
func policyWarnings(spec *directory.Spec) []iam.Warning {
	var warnings []iam.Warning
	warn := func(list []iam.Warning) {
		for _, w := range list {
			if !slices.Contains(warnings, w) { // those who hold the same policies have the same warnings
				warnings = append(warnings, w)
			}
		}
	}
	site := iam.Site{Partition: iam.PartitionOf(spec.Region), Region: spec.Region, Account: spec.Account, Clusters: []string{}}
	for _, c := range spec.Clusters {
		site.Clusters = append(site.Clusters, c.Identifier)
	}
	add := func(policies ...*iam.Policy) {
		for _, p := range policies {
			if p != nil {
				warn(p.Warnings())
				if spec.Region != "" && spec.Account != "" {
					warn(p.Elsewhere(site))
				}
			}
		}
	}
	named := map[string]*iam.Policy{}
	for _, p := range spec.Policies {
		add(p.Policy)
		named[p.Name] = p.Policy
	}
	identity := func(inline []*iam.Policy, attached []string) []*iam.Policy {
		list := slices.Clone(inline)
		for _, name := range attached {
			if p := named[name]; p != nil {
				list = append(list, p)
			}
		}
		return list
	}
	groups := map[string][]*iam.Policy{}
	for _, g := range spec.Groups {
		add(g.Inline...)
		groups[g.Name] = identity(g.Inline, g.Attached)
		warn((&iam.Policies{Identity: groups[g.Name]}).Warnings())
	}
	for _, u := range spec.Users {
		add(u.Inline...)
		add(u.Boundary)
		held := iam.Policies{Identity: identity(u.Inline, u.Attached), Boundary: u.Boundary}
		for _, group := range u.Groups {
			held.Identity = append(held.Identity, groups[group]...)
		}
		warn(held.Warnings())
	}
	for _, r := range spec.Roles {
		add(r.Inline...)
		add(r.Boundary, r.Trust)
		held := iam.Policies{Identity: identity(r.Inline, r.Attached), Boundary: r.Boundary}
		warn(held.Warnings())
	}
	return warnings
}

// located is a warning with its place in the form of all others. A policy of the
// file is called by the file and its key.
func located(w iam.Warning) string {
	file, key, _ := strings.Cut(w.Policy, " ")
	return fmt.Sprintf("%s:%d: %s: %s", file, w.Line, strings.Trim(key+"."+w.Path, "."), w.Reason)
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

// A secret of fewer characters than leastSecret is refused, one of fewer than
// fairSecret is warned of.
const (
	leastSecret = 8
	fairSecret  = 16
)

// placeholder is what a template leaves where it was not run: ${NAME}, $NAME, $(NAME),
// {{ name }}, <name>, %NAME%, @NAME@, __NAME__; one of them, or several and nothing else.
var placeholder = regexp.MustCompile(`^\s*((\$\{[^{}]*\}|\$[A-Z_][A-Z0-9_]*|\$\([^()]*\)|\{\{.*\}\}|<[^<>]*>|` +
	`%[A-Z][A-Z0-9_]*%|@[A-Z][A-Z0-9_]*@|__[A-Z][A-Z0-9_]*__)\s*)+$`)

// isPlaceholder is what is wrong with one. A name that is none keeps nothing from being
// lent and matches no token, without a word.
const isPlaceholder = "a placeholder that no template has filled in: write a value"

// strong judges a secret that callers prove they know; why says what a short one is
// open to.
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

// mfaDevices reads the one-time-password devices of an IAM user. One may do without
// a serial number; a code is checked against the device that its caller names, so
// two cannot have the same.
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
