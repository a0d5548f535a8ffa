package config

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

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

// readIAM reads the iam section: users, groups, IAM roles, named policies and
// identity providers.
func readIAM(s *section, spec *directory.Spec) {
	seen := map[string]bool{}
	for _, p := range s.sections("policies") {
		name := p.iamName("policy", seen)
		document := p.policy("document", iam.IdentityPolicy)
		if !p.has("document") {
			p.errorf("document", "is required")
		}
		spec.Policies = append(spec.Policies, directory.NamedPolicy{Name: name, Policy: document})
		p.done()
	}
	for _, g := range s.sections("groups") {
		spec.Groups = append(spec.Groups, directory.GroupSpec{
			Name:     g.iamName("group", seen),
			Inline:   g.policies("policies"),
			Attached: g.attached(seen),
		})
		g.done()
	}
	for _, u := range s.sections("users") {
		user := directory.UserSpec{
			Name:       u.iamName("user", seen),
			Path:       u.iamPath(),
			AccessKeys: u.accessKeys(seen),
			Groups:     u.texts("groups"),
			Tags:       u.tags("tags"),
			Inline:     u.policies("policies"),
			Attached:   u.attached(seen),
			Boundary:   u.policy("permissions_boundary", iam.IdentityPolicy),
		}
		user.MFASeeds = u.mfaDevices(directory.MFASerialNumber(spec.Account, user.Name), seen)
		for _, group := range user.Groups {
			if !seen["group "+group] {
				u.errorf("groups", "group %q is not in iam.groups", group)
			}
		}
		spec.Users = append(spec.Users, user)
		u.done()
	}
	for _, r := range s.sections("roles") {
		role := directory.RoleSpec{
			Name:               r.iamName("role", seen),
			Path:               r.iamPath(),
			Trust:              r.policy("trust_policy", iam.TrustPolicy),
			Tags:               r.tags("tags"),
			Inline:             r.policies("policies"),
			Attached:           r.attached(seen),
			Boundary:           r.policy("permissions_boundary", iam.IdentityPolicy),
			MaxSessionDuration: r.seconds("max_session_duration", time.Hour, leastSession, mostSession),
		}
		if !r.has("trust_policy") {
			r.errorf("trust_policy", "is required: it says who may assume the role")
		}
		spec.Roles = append(spec.Roles, role)
		r.done()
	}
	for _, p := range s.sections("oidc_providers") {
		spec.Providers = append(spec.Providers, p.provider(seen))
		p.done()
	}
}

// iamName reads the name of something that IAM names; names of one kind are
// told apart without regard to case, as at AWS.
func (s *section) iamName(kind string, seen map[string]bool) string {
	name := s.required("name")
	if name != "" && !iamNamePattern.MatchString(name) {
		s.errorf("name", "is %q, want 1 to 64 letters, digits or characters of _+=,.@-", name)
	}
	folded := "folded " + kind + " " + strings.ToLower(name)
	if name != "" && seen[folded] {
		s.errorf("name", "%s %q is there twice", kind, name)
	}
	seen[folded] = true
	seen[kind+" "+name] = true
	return name
}

func (s *section) iamPath() string {
	path := s.text("path", "/")
	if !iamPathPattern.MatchString(path) {
		s.errorf("path", "is %q, want / or /something/", path)
	}
	return path
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
		Issuer:    s.required("issuer"),
		Audiences: s.texts("audiences"),
	}
	if u, err := url.Parse(p.Issuer); p.Issuer != "" && (err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "https" && !(u.Scheme == "http" && IsLoopback(u.Hostname()))) {
		s.errorf("issuer", "is %q, want an https URL without query (http on loopback only)", p.Issuer)
	}
	if seen["issuer "+p.Issuer] {
		s.errorf("issuer", "%q is there twice", p.Issuer)
	}
	seen["issuer "+p.Issuer] = true
	if audiences := s.get("audiences"); audiences == nil || audiences.Kind == yaml.SequenceNode && len(audiences.Content) == 0 {
		s.errorf("audiences", "is required: the aud values that the provider's tokens may carry")
	}
	if path := s.text("jwks_file", ""); path != "" {
		p.JWKSFile = s.file.resolve(path)
		if err := sts.CheckKeyFile(p.JWKSFile); err != nil {
			s.errorf("jwks_file", "%v", err)
		}
	}
	if path := s.text("ca_file", ""); path != "" {
		p.CAFile = s.file.resolve(path)
		pem, err := os.ReadFile(p.CAFile)
		switch {
		case err != nil:
			s.errorf("ca_file", "%v", err)
		case !x509.NewCertPool().AppendCertsFromPEM(pem):
			s.errorf("ca_file", "%s has no certificate in PEM form", p.CAFile)
		}
	}
	return p
}

// policyWarnings collects what the policies can hardly have meant.
func policyWarnings(spec *directory.Spec, d *directory.Directory) []string {
	var warnings []string
	warn := func(list []iam.Warning) {
		for _, w := range list {
			// A policy of the file is called by the file and its key.
			file, key, _ := strings.Cut(w.Policy, " ")
			where := strings.Trim(key+"."+w.Path, ".")
			text := fmt.Sprintf("%s:%d: %s: %s", file, w.Line, where, w.Reason)
			// Those who hold the same policies have the same warnings.
			if !slices.Contains(warnings, text) {
				warnings = append(warnings, text)
			}
		}
	}
	add := func(policies ...*iam.Policy) {
		for _, p := range policies {
			if p != nil {
				warn(p.Warnings())
				warn(p.Elsewhere(spec.Region, spec.Account))
			}
		}
	}
	for _, p := range spec.Policies {
		add(p.Policy)
	}
	for _, g := range spec.Groups {
		add(g.Inline...)
	}
	for _, u := range spec.Users {
		add(u.Inline...)
		add(u.Boundary)
		if user, ok := d.User(u.Name); ok {
			warn(user.Policies.Warnings())
		}
	}
	for _, r := range spec.Roles {
		add(r.Inline...)
		add(r.Boundary, r.Trust)
		if role, ok := d.Role(r.Name); ok {
			warn(role.Policies.Warnings())
		}
	}
	return warnings
}

// accessKeys reads the access keys of an IAM user.
func (s *section) accessKeys(seen map[string]bool) []directory.AccessKey {
	var keys []directory.AccessKey
	for _, k := range s.sections("access_keys") {
		id := k.required("id")
		if id != "" && !accessKeyPattern.MatchString(id) {
			k.errorf("id", "is %q, want 16 to 128 letters, digits or underscores, such as AKIAIOSFODNN7EXAMPLE", id)
		}
		if strings.HasPrefix(id, "ASIA") {
			k.errorf("id", "begins with ASIA, which marks temporary access keys; a long-term one begins with AKIA")
		}
		if seen["key "+id] {
			k.errorf("id", "%q is there twice", id)
		}
		seen["key "+id] = true
		before := len(k.file.errs)
		secret, ok := k.secret("secret", "secret_env", "secret_file", true)
		if !ok && len(k.file.errs) == before {
			k.errorf("secret", "one of secret_env, secret_file and secret is required")
		}
		keys = append(keys, directory.AccessKey{ID: id, Secret: secret})
		k.done()
	}
	return keys
}

// mfaDevices reads the one-time-password devices of an IAM user. One may do without
// a serial number; a code is checked against the device that its caller names, so
// two cannot have the same.
func (s *section) mfaDevices(unnamed string, seen map[string]bool) []directory.MFADevice {
	var devices []directory.MFADevice
	for _, d := range s.sections("mfa_devices") {
		device := directory.MFADevice{SerialNumber: d.text("serial_number", unnamed)}
		switch {
		case d.has("serial_number") && !serialPattern.MatchString(device.SerialNumber):
			d.errorf("serial_number", "is %q, want 9 to 256 letters, digits or characters of _+=/:,.@-", device.SerialNumber)
		case seen["device "+device.SerialNumber] && d.has("serial_number"):
			d.errorf("serial_number", "%q is there twice", device.SerialNumber)
		case seen["device "+device.SerialNumber]:
			d.errorf("serial_number", "is required: another device is %q already", unnamed)
		}
		seen["device "+device.SerialNumber] = true
		before := len(d.file.errs)
		seed, ok := d.secret("seed", "seed_env", "seed_file", true)
		if !ok && len(d.file.errs) == before {
			d.errorf("seed", "one of seed_env, seed_file and seed is required: the device's key in base32")
		}
		device.Seed = keyring.Secret(strings.ToUpper(strings.ReplaceAll(seed.Reveal(), " ", "")))
		if ok && sts.CheckSeed(device.Seed) != nil {
			d.errorf(d.first("seed", "seed_env", "seed_file"), "is not the key of an MFA device in base32 (letters and the digits 2 to 7)")
		}
		devices = append(devices, device)
		d.done()
	}
	return devices
}
