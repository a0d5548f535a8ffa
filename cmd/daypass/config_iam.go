package main

import (
	"crypto/x509"
	"net/url"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
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
		u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname()))) {
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
