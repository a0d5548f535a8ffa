// Package directory holds the identities and clusters of the running configuration: IAM
// users with their access keys, groups, IAM roles, named policies, identity providers
// and clusters.
//
// A Directory is an immutable snapshot. A reload builds a new one and replaces it as a
// whole, so that a request sees one configuration from the first check to the last. The
// policies of groups, attached policies and permissions boundaries are resolved when
// the snapshot is built.
//
// The unique ids (AIDA…, AROA…, AGPA…) are derived from the ARN, because the
// configuration file has none: the same name in the same account has the same id after
// every restart and on every machine. So a user who is deleted and created again gets
// the old id, unlike at AWS (docs/divergences.md).
//
// The package does no I/O and keeps no secret other than as keyring.Secret.
package directory

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
)

// Directory is one configuration's principals and clusters. It is safe for
// concurrent use.
type Directory struct {
	Account   string // 12 digits
	Region    string
	Partition string // of every ARN here, which is the region's

	accessKeys map[string]*AccessKey
	users      map[string]*User
	roles      map[string]*Role
	policies   map[string]*iam.Policy // by ARN
	providers  map[string]*Provider   // by issuer
	devices    map[string]*User       // by the serial number of an MFA device
	clusters   map[string]*Cluster
	byDomain   map[string]*Cluster
	byHost     map[string]*Cluster // nil where several clusters share the endpoint
	sorted     []*Cluster
}

// AccessKey is a long-term access key of an IAM user.
type AccessKey struct {
	ID     string
	Secret keyring.Secret
	User   *User
}

// NewAccessKey makes a random access key that looks like AWS's and belongs to no user yet.
func NewAccessKey() AccessKey {
	secret := make([]byte, 30)
	rand.Read(secret) // never fails
	return AccessKey{ID: "AKIA" + rand.Text()[:16], Secret: keyring.Secret(base64.StdEncoding.EncodeToString(secret))}
}

// User is an IAM user.
type User struct {
	Name string
	ID   string // AIDA…
	ARN  string
	Tags map[string]string
	// Policies are the user's own, its groups' and the attached ones, with
	// the permissions boundary.
	Policies   iam.Policies
	MFADevices []MFADevice
}

// MFADevice is a virtual device that shows time-based one-time passwords
// (RFC 6238: SHA-1, six digits, 30 seconds, as every authenticator app has it).
type MFADevice struct {
	SerialNumber string // the device's ARN
	Seed         keyring.Secret
}

// Role is an IAM role.
type Role struct {
	Name               string
	ID                 string // AROA…
	ARN                string
	Tags               map[string]string
	Policies           iam.Policies
	Trust              *iam.Policy
	MaxSessionDuration time.Duration // 1 to 12 hours
}

// Provider is an OpenID Connect identity provider whose tokens may be exchanged
// for a role session.
type Provider struct {
	Issuer    string // the URL as in the tokens' iss claim
	Audiences []string
	JWKSFile  string // in place of discovery. Optional
	CAFile    string // trusted for discovery in addition to the system's. Optional
}

// Name returns the issuer without its scheme, the prefix of the provider's condition
// keys.
func (p *Provider) Name() string {
	_, name, found := strings.Cut(p.Issuer, "://")
	if !found {
		return p.Issuer
	}
	return name
}

// Cluster is one PostgreSQL target as the API describes it. The gateway knows how to
// reach and administer it.
type Cluster struct {
	Identifier      string
	Database        string // the default one, DBName in DescribeClusters
	CustomDomains   []string
	Host            string // the endpoint that clients log on at
	ListenHost      string // the gateway's own address, when it is another. Optional
	Port            int
	AllowSuperusers bool
	Tags            map[string]string
	MasterUsername  string // the administrative login's name
}

// Spec is what New builds a Directory from. Names are unique, policies are
// compiled; references are by name.
type Spec struct {
	Account   string
	Region    string
	Policies  []NamedPolicy
	Users     []UserSpec
	Groups    []GroupSpec
	Roles     []RoleSpec
	Providers []Provider
	Clusters  []Cluster
}

// NamedPolicy is a managed policy: a document that can be attached to many users, groups and IAM
// roles.
type NamedPolicy struct {
	Name   string
	Policy *iam.Policy
}

// UserSpec is an IAM user as configured, with the names of groups and policies.
type UserSpec struct {
	Name       string
	Path       string // "/" when empty
	AccessKeys []AccessKey
	Groups     []string
	Tags       map[string]string
	Inline     []*iam.Policy
	Attached   []string
	Boundary   *iam.Policy
	MFASeeds   []MFADevice // a SerialNumber that is empty is MFASerialNumber's
}

// GroupSpec is an IAM group.
type GroupSpec struct {
	Name     string
	Inline   []*iam.Policy
	Attached []string
}

// RoleSpec is an IAM role as configured, with the names of policies.
type RoleSpec struct {
	Name               string
	Path               string // "/" when empty
	Trust              *iam.Policy
	Tags               map[string]string
	Inline             []*iam.Policy
	Attached           []string
	Boundary           *iam.Policy
	MaxSessionDuration time.Duration // one hour when zero
}

// Principals returns the ARNs that a trust policy can name, as iam.Site has them. It also works on a
// specification that New refuses.
func (s *Spec) Principals() map[string]bool {
	d := &Directory{Partition: iam.PartitionOf(s.Region), Account: s.Account}
	arns := make(map[string]bool, len(s.Users)+2*len(s.Roles)+len(s.Providers))
	for i := range s.Users {
		arns[d.userARN(&s.Users[i])] = true
	}
	for i := range s.Roles {
		arns[d.roleARN(&s.Roles[i])] = true
		arns["arn:"+d.Partition+":sts::"+d.Account+":assumed-role/"+s.Roles[i].Name+"/"] = true
	}
	for i := range s.Providers {
		arns[d.ProviderARN(&s.Providers[i])] = true
	}
	return arns
}

// New links a specification into a Directory. An error names the reference that
// leads nowhere or the name that is used twice.
func New(spec Spec) (*Directory, error) {
	d := &Directory{
		Account:    spec.Account,
		Region:     spec.Region,
		Partition:  iam.PartitionOf(spec.Region),
		accessKeys: make(map[string]*AccessKey),
		users:      make(map[string]*User, len(spec.Users)),
		roles:      make(map[string]*Role, len(spec.Roles)),
		policies:   make(map[string]*iam.Policy, len(spec.Policies)),
		providers:  make(map[string]*Provider, len(spec.Providers)),
		devices:    make(map[string]*User),
		clusters:   make(map[string]*Cluster, len(spec.Clusters)),
		byDomain:   make(map[string]*Cluster),
		byHost:     make(map[string]*Cluster),
	}
	for _, p := range spec.Policies {
		if err := put(d.policies, d.iamARN("policy/"+p.Name), p.Policy, "policy", p.Name); err != nil {
			return nil, err
		}
	}
	groups := make(map[string][]*iam.Policy, len(spec.Groups))
	for _, g := range spec.Groups {
		policies, err := d.gather(g.Inline, g.Attached)
		if err != nil {
			return nil, fmt.Errorf("group %q: %w", g.Name, err)
		}
		if err := put(groups, g.Name, policies, "group", g.Name); err != nil {
			return nil, err
		}
	}
	for i := range spec.Users {
		if err := d.addUser(&spec.Users[i], groups); err != nil {
			return nil, err
		}
	}
	for i := range spec.Roles {
		if err := d.addRole(&spec.Roles[i]); err != nil {
			return nil, err
		}
	}
	for _, p := range spec.Providers {
		if err := put(d.providers, p.Issuer, &p, "identity provider", p.Issuer); err != nil {
			return nil, err
		}
	}
	for _, c := range spec.Clusters {
		if err := d.addCluster(&c); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(d.sorted, func(a, b *Cluster) int { return strings.Compare(a.Identifier, b.Identifier) })
	return d, nil
}

func (d *Directory) addUser(spec *UserSpec, groups map[string][]*iam.Policy) error {
	policies, err := d.gather(spec.Inline, spec.Attached)
	if err != nil {
		return fmt.Errorf("user %q: %w", spec.Name, err)
	}
	for _, name := range spec.Groups {
		more, ok := groups[name]
		if !ok {
			return fmt.Errorf("user %q: group %q does not exist", spec.Name, name)
		}
		policies = append(policies, more...)
	}
	arn := d.userARN(spec)
	u := &User{
		Name:     spec.Name,
		ID:       uniqueID("AIDA", arn),
		ARN:      arn,
		Tags:     spec.Tags,
		Policies: iam.Policies{Identity: policies, Boundary: spec.Boundary},
	}
	for _, device := range spec.MFASeeds {
		if device.SerialNumber == "" {
			device.SerialNumber = MFASerialNumber(d.Region, d.Account, spec.Name)
		}
		if err := put(d.devices, device.SerialNumber, u, "MFA device", device.SerialNumber); err != nil {
			return fmt.Errorf("user %q: %w", spec.Name, err)
		}
		u.MFADevices = append(u.MFADevices, device)
	}
	if err := put(d.users, u.Name, u, "user", u.Name); err != nil {
		return err
	}
	for _, key := range spec.AccessKeys {
		key.User = u
		if err := put(d.accessKeys, key.ID, &key, "access key", key.ID); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) addRole(spec *RoleSpec) error {
	policies, err := d.gather(spec.Inline, spec.Attached)
	if err != nil {
		return fmt.Errorf("role %q: %w", spec.Name, err)
	}
	arn := d.roleARN(spec)
	r := &Role{
		Name:               spec.Name,
		ID:                 uniqueID("AROA", arn),
		ARN:                arn,
		Tags:               spec.Tags,
		Policies:           iam.Policies{Identity: policies, Boundary: spec.Boundary},
		Trust:              spec.Trust,
		MaxSessionDuration: spec.MaxSessionDuration,
	}
	if r.MaxSessionDuration == 0 {
		r.MaxSessionDuration = time.Hour
	}
	return put(d.roles, r.Name, r, "role", r.Name)
}

func (d *Directory) addCluster(c *Cluster) error {
	if err := put(d.clusters, c.Identifier, c, "cluster", c.Identifier); err != nil {
		return err
	}
	d.sorted = append(d.sorted, c)
	hosts := []string{normalDomain(c.Host)}
	if other := normalDomain(c.ListenHost); other != "" && other != hosts[0] {
		hosts = append(hosts, other)
	}
	for _, host := range hosts {
		if _, shared := d.byHost[host]; shared {
			d.byHost[host] = nil
		} else {
			d.byHost[host] = c
		}
	}
	for _, domain := range c.CustomDomains {
		if err := put(d.byDomain, normalDomain(domain), c, "custom domain", domain); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) gather(inline []*iam.Policy, attached []string) ([]*iam.Policy, error) {
	policies := slices.Clone(inline)
	for _, name := range attached {
		p, ok := d.policies[d.iamARN("policy/"+name)]
		if !ok {
			return nil, fmt.Errorf("attached policy %q does not exist", name)
		}
		policies = append(policies, p)
	}
	return policies, nil
}

func put[V any](m map[string]V, key string, value V, kind, name string) error {
	if _, taken := m[key]; taken {
		return fmt.Errorf("%s %q is duplicated", kind, name)
	}
	m[key] = value
	return nil
}

func (d *Directory) iamARN(resource string) string {
	return "arn:" + d.Partition + ":iam::" + d.Account + ":" + resource
}

func (d *Directory) userARN(u *UserSpec) string { return d.iamARN("user" + pathOf(u.Path) + u.Name) }

func (d *Directory) roleARN(r *RoleSpec) string { return d.iamARN("role" + pathOf(r.Path) + r.Name) }

// ProviderARN returns the ARN of a provider; its last part is the issuer without the
// scheme.
func (d *Directory) ProviderARN(p *Provider) string { return d.iamARN("oidc-provider/" + p.Name()) }

// MFASerialNumber returns the serial number of an MFA device for which the configuration has none.
func MFASerialNumber(region, account, user string) string {
	return "arn:" + iam.PartitionOf(region) + ":iam::" + account + ":mfa/" + user
}

func pathOf(path string) string {
	return cmp.Or(path, "/")
}

// uniqueID returns an id in the form of AWS's unique ids: the prefix of its kind and 17 upper-case
// letters and digits.
func uniqueID(prefix, arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:17]
}

func normalDomain(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// AccessKey finds a long-term access key.
func (d *Directory) AccessKey(id string) (*AccessKey, bool) {
	k, ok := d.accessKeys[id]
	return k, ok
}

// User finds an IAM user by its friendly name.
func (d *Directory) User(name string) (*User, bool) {
	u, ok := d.users[name]
	return u, ok
}

// UserARNs returns the ARNs of all IAM users, in no particular order.
func (d *Directory) UserARNs() (arns []string) {
	for _, u := range d.users {
		arns = append(arns, u.ARN)
	}
	return arns
}

// RoleARNs returns the ARNs of all IAM roles, in no particular order.
func (d *Directory) RoleARNs() (arns []string) {
	for _, r := range d.roles {
		arns = append(arns, r.ARN)
	}
	return arns
}

// Role finds an IAM role by its friendly name.
func (d *Directory) Role(name string) (*Role, bool) {
	r, ok := d.roles[name]
	return r, ok
}

// Policy finds a named policy by its ARN.
func (d *Directory) Policy(arn string) (*iam.Policy, bool) {
	p, ok := d.policies[arn]
	return p, ok
}

// Provider finds an identity provider by the issuer that its tokens carry.
func (d *Directory) Provider(issuer string) (*Provider, bool) {
	p, ok := d.providers[issuer]
	return p, ok
}

// Providers returns all identity providers, in no particular order.
func (d *Directory) Providers() []*Provider {
	return slices.Collect(maps.Values(d.providers))
}

// Cluster finds a cluster by its identifier, which is case sensitive.
func (d *Directory) Cluster(identifier string) (*Cluster, bool) {
	c, ok := d.clusters[identifier]
	return c, ok
}

// Clusters returns all clusters, sorted by identifier. The caller must not change
// the slice.
func (d *Directory) Clusters() []*Cluster { return d.sorted }

// SharedAddress reports whether a host is the endpoint address of several clusters, so
// that the host alone does not identify one.
func (d *Directory) SharedAddress(host string) bool {
	c, known := d.byHost[normalDomain(host)]
	return known && c == nil
}

// ClusterByDomain returns the cluster of a custom domain name. A cluster's endpoint
// address, and the gateway's own, count if only one cluster has them: Redshift drivers
// send their host, or the address that DescribeClusters returned, as a custom domain
// name.
func (d *Directory) ClusterByDomain(host string) (*Cluster, bool) {
	host = normalDomain(host)
	if c, ok := d.byDomain[host]; ok {
		return c, true
	}
	c := d.byHost[host]
	return c, c != nil
}
