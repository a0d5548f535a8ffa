package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

// config is the configuration file, read and checked. Its shape is described in
// docs/operations.md. Packages never see it: serve hands each of them its own
// Config of parsed values.
type config struct {
	Path    string // of the file, as given
	Account string
	Region  string
	Data    string // absolute

	API      apiConfig
	Gateway  gatewayConfig
	Admin    adminConfig
	Tracing  tracingConfig
	Registry registryConfig
	Clusters []clusterConfig

	Directory *directory.Directory
	// Warnings are what a policy can hardly have meant, with file and line.
	Warnings []string

	lines map[string]int // of the keys that a start or a reload can still fail on
}

type apiConfig struct {
	Listen         string
	TLS            certificateFiles
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	Limits         limitsConfig
}

type gatewayConfig struct {
	Listen    string
	TLS       certificateFiles // empty: the gateway's own CA makes one
	Advertise endpoint
}

// certificateFiles are two PEM files, absolute; both or neither.
type certificateFiles struct{ Certificate, Key string }

func (f certificateFiles) given() bool { return f.Certificate != "" }

// endpoint is where clients are told to log on.
type endpoint struct {
	Host string
	Port int
}

type clusterConfig struct {
	Identifier string
	Database   string
	Upstream   *pgx.ConnConfig
	// TargetSessionAttrs is libpq's setting in the upstream connection string.
	TargetSessionAttrs string
	AllowSuperusers    bool
	// AllowPredefinedRoles lets pg_* roles be named as groups.
	AllowPredefinedRoles bool
	Sessions             sessionLimits
	Prewarm              int // sessions started ahead at most
}

// sessionLimits bound the sessions of a cluster. The zero value is no limit.
type sessionLimits struct {
	Max, PerUser int
	Ends         gateway.Ends
}

var (
	accountPattern    = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	identifierPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	iamNamePattern    = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	iamPathPattern    = regexp.MustCompile(`^/([\x21-\x7e]{1,510}/)?$`)
	accessKeyPattern  = regexp.MustCompile(`^\w{16,128}$`)
	serialPattern     = regexp.MustCompile(`^[\w+=/:,.@-]{9,256}$`) // as API_GetSessionToken takes it
	hostPattern       = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?$`)
	passwordPattern   = regexp.MustCompile(`\bpassword\s*=`)
	// sessionAttrsPattern finds the setting in a connection string that is known
	// to parse, a URL or key=value words.
	sessionAttrsPattern = regexp.MustCompile(`\btarget_session_attrs\s*=\s*'?([a-z-]+)`)
)

// loadConfig reads the configuration file. The error names every fault found,
// each with file, line and key.
func loadConfig(path string) (*config, error) {
	return loadConfigEnv(path, os.LookupEnv)
}

func loadConfigEnv(path string, getenv func(string) (string, bool)) (*config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parseConfig(path, data, getenv)
}

// parseConfig is loadConfig for a text at hand; path is what messages call it and
// what relative paths in it start from.
func parseConfig(path string, data []byte, getenv func(string) (string, bool)) (*config, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, another yaml.Node
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, syntaxError(path, data, err)
	}
	if len(document.Content) == 0 {
		return nil, fmt.Errorf("%s:1: the file is empty", path)
	}
	switch err := decoder.Decode(&another); {
	case err == nil:
		return nil, fmt.Errorf("%s:%d: a second YAML document begins here; the configuration has to be one", path, another.Line)
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(path, data, err)
	}
	if kind := document.Content[0].Kind; kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: the file is %s, want a mapping of keys to values", path, document.Content[0].Line, kindOf(document.Content[0]))
	}
	f := &yamlFile{path: path, dir: filepath.Dir(absolute), getenv: getenv}
	if !f.checkAliases(document.Content[0]) {
		return nil, f.err()
	}
	top := f.section(document.Content[0], "")
	c := &config{Path: path}
	c.read(top)
	top.done()
	if err := f.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// noteLines remembers where keys stand.
func (c *config) noteLines(s *section, keys ...string) {
	for _, key := range keys {
		if node := s.at[key]; node != nil {
			c.lines[s.path(key)] = node.Line
		}
	}
}

// fault says that err came of a key's value, with file and line where a file has
// them.
func (c *config) fault(key string, err error) error {
	switch line := c.lines[key]; {
	case c.Path == "":
		return fmt.Errorf("%s: %w", key, err)
	case line == 0:
		return fmt.Errorf("%s: %s: %w", c.Path, key, err)
	default:
		return fmt.Errorf("%s:%d: %s: %w", c.Path, line, key, err)
	}
}

func (c *config) read(top *section) {
	f := top.file
	c.Account = top.required("account")
	if c.Account != "" && !accountPattern.MatchString(c.Account) {
		top.errorf("account", "is %q, want 12 digits in quotes", c.Account)
	}
	c.Region = top.required("region")
	if c.Region != "" && !regionPattern.MatchString(c.Region) {
		top.errorf("region", "is %q, want a region name such as us-east-1", c.Region)
	}
	c.lines = map[string]int{}
	c.noteLines(top, "account", "region", "data", "gateway")
	if data := top.required("data"); data != "" {
		c.Data = f.resolve(data)
	}
	if api := top.sub("api"); api != nil {
		c.noteLines(api, "listen", "tls")
		c.API.read(api)
		api.done()
	} else {
		top.missing("api", "listen")
	}
	if gateway := top.sub("gateway"); gateway != nil {
		c.noteLines(gateway, "listen", "tls")
		c.Gateway.read(gateway)
		gateway.done()
	} else {
		top.missing("gateway", "listen")
	}
	if admin := top.sub("admin"); admin != nil {
		c.noteLines(admin, "listen")
		c.Admin.read(admin)
		admin.done()
	}
	if tracing := top.sub("tracing"); tracing != nil {
		c.Tracing.read(tracing)
		tracing.done()
	}
	if registry := top.sub("registry"); registry != nil {
		c.noteLines(top, "registry")
		c.Registry.read(c, registry)
		registry.done()
	}

	spec := directory.Spec{Account: c.Account, Region: c.Region}
	seen := map[string]bool{}
	for _, s := range top.sections("clusters") {
		c.readCluster(s, &spec, seen)
		s.done()
	}
	if s := top.sub("iam"); s != nil {
		readIAM(s, &spec)
		s.done()
	}
	if len(f.errs) > 0 {
		return
	}
	d, err := directory.New(spec)
	if err != nil {
		// The names were checked above, each at its line; what is left has none.
		f.errs = append(f.errs, fmt.Errorf("%s: %w", f.path, err))
		return
	}
	c.Directory = d
	c.Warnings = policyWarnings(&spec, d)
}

func (a *apiConfig) read(s *section) {
	a.Listen = s.listenAddress("listen")
	a.TLS = s.certificate("tls")
	if host, _, err := net.SplitHostPort(a.Listen); err == nil && !isLoopback(host) && !a.TLS.given() && !s.has("tls") {
		s.errorf("listen", "%s is not a loopback address: it needs api.tls with a certificate and a key, since credentials are handed out there", a.Listen)
	}
	a.Limits.read(s.sub("limits"))
	for i, text := range s.texts("trusted_proxies") {
		prefix, err := parsePrefix(text)
		if err != nil {
			s.errorf("trusted_proxies", "[%d] is %q, want an address or a CIDR block", i, text)
			continue
		}
		a.TrustedProxies = append(a.TrustedProxies, prefix)
	}
}

func (g *gatewayConfig) read(s *section) {
	g.Listen = s.listenAddress("listen")
	g.TLS = s.certificate("tls")
	host, port, err := net.SplitHostPort(g.Listen)
	if err != nil {
		return
	}
	number, _ := strconv.Atoi(port)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	g.Advertise = endpoint{Host: host, Port: number}
	if a := s.sub("advertise"); a != nil {
		g.Advertise.Host = a.text("host", host)
		if _, err := netip.ParseAddr(g.Advertise.Host); err != nil && !isHostName(g.Advertise.Host) {
			a.errorf("host", "is %q, want a host name or an address", g.Advertise.Host)
		}
		g.Advertise.Port = a.integer("port", number, 1, 65535)
		a.done()
	}
}

func (s *section) listenAddress(key string) string {
	address := s.required(key)
	if address == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(address)
	if number, atoiErr := strconv.Atoi(port); err != nil || atoiErr != nil || number < 0 || number > 65535 {
		s.errorf(key, "is %q, want HOST:PORT, such as 127.0.0.1:8440", address)
		return ""
	}
	return address
}

// certificate reads a pair of PEM files, which are opened when the server
// starts.
func (s *section) certificate(key string) certificateFiles {
	sub := s.sub(key)
	if sub == nil {
		return certificateFiles{}
	}
	defer sub.done()
	return sub.pair()
}

// pair reads the two paths of a section.
func (s *section) pair() certificateFiles {
	files := certificateFiles{Certificate: s.required("certificate"), Key: s.required("key")}
	if files.Certificate == "" || files.Key == "" {
		return certificateFiles{}
	}
	files.Certificate, files.Key = s.file.resolve(files.Certificate), s.file.resolve(files.Key)
	if s.readable("certificate", files.Certificate) && s.readable("key", files.Key) {
		if _, err := tls.LoadX509KeyPair(files.Certificate, files.Key); err != nil {
			s.errorf("certificate", "%s and %s are not a certificate and its key: %v", files.Certificate, files.Key, err)
		}
	}
	return files
}

// defaultUpstream is the administrative login of a cluster that names none.
const defaultUpstream = "postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable"

func (c *config) readCluster(s *section, spec *directory.Spec, seen map[string]bool) {
	id := s.required("identifier")
	if id != "" && !identifierPattern.MatchString(id) {
		s.errorf("identifier", "is %q, want 1 to 63 letters, digits, hyphens, dots or underscores, beginning with a letter or a digit", id)
	}
	if seen["cluster "+id] {
		s.errorf("identifier", "%q is there twice", id)
	}
	seen["cluster "+id] = true

	domains := s.texts("custom_domains")
	for _, domain := range domains {
		if !isHostName(domain) {
			s.errorf("custom_domains", "%q is not a host name", domain)
		}
		name := "domain " + strings.ToLower(strings.TrimSuffix(domain, "."))
		if seen[name] {
			s.errorf("custom_domains", "%q is there twice", domain)
		}
		seen[name] = true
	}
	upstream, attrs := s.upstream()
	database := s.text("database", "dev")
	cluster := clusterConfig{
		Identifier:           id,
		Database:             database,
		Upstream:             upstream,
		TargetSessionAttrs:   attrs,
		AllowSuperusers:      s.boolean("allow_superusers"),
		AllowPredefinedRoles: s.boolean("allow_predefined_roles"),
		Sessions:             s.sessionLimits("session_limits"),
		Prewarm:              s.prewarm("prewarm"),
	}
	c.Clusters = append(c.Clusters, cluster)
	listenHost, _, _ := net.SplitHostPort(c.Gateway.Listen)
	entry := directory.Cluster{
		Identifier:      id,
		Database:        database,
		CustomDomains:   domains,
		Host:            c.Gateway.Advertise.Host,
		ListenHost:      listenHost,
		Port:            c.Gateway.Advertise.Port,
		AllowSuperusers: cluster.AllowSuperusers,
		Tags:            s.tags("tags"),
	}
	if upstream != nil {
		entry.MasterUsername = upstream.User
	}
	spec.Clusters = append(spec.Clusters, entry)
}

// prewarm reads how many sessions of a cluster may be started ahead.
func (s *section) prewarm(key string) int {
	sub := s.sub(key)
	if sub == nil {
		return 0
	}
	defer sub.done()
	if !sub.has("max") {
		s.errorf(key, "needs max")
	}
	return sub.integer("max", 0, 0, 1000)
}

// sessionLimits reads the limits of a cluster's sessions.
func (s *section) sessionLimits(key string) sessionLimits {
	sub := s.sub(key)
	if sub == nil {
		return sessionLimits{}
	}
	defer sub.done()
	const most, year = 1_000_000, 365 * 24 * time.Hour
	limits := sessionLimits{
		Max:     sub.integer("max", 0, 1, most),
		PerUser: sub.integer("per_user", 0, 1, most),
		Ends: gateway.Ends{
			Idle:     sub.seconds("idle", 0, time.Second, year),
			Total:    sub.seconds("total", 0, time.Second, year),
			AtExpiry: sub.boolean("end_at_expiry"),
			Notice:   sub.seconds("notice", 5*time.Minute, 0, 24*time.Hour),
		},
	}
	if sub.has("notice") && limits.Ends.Total == 0 && !limits.Ends.AtExpiry {
		sub.errorf("notice", "has nothing to tell without total or end_at_expiry")
	}
	return limits
}

// upstream parses the administrative login. A password in the connection string
// works; upstream_password_env and _file keep it out of a file that is copied,
// shown and committed. The second result is target_session_attrs, which the parsed
// form keeps as a function only.
func (s *section) upstream() (*pgx.ConnConfig, string) {
	text := s.text("upstream", defaultUpstream)
	s.known("upstream_password_env", "upstream_password_file")
	own := s.at["upstream_password_env"] != nil || s.at["upstream_password_file"] != nil
	within := passwordPattern.MatchString(text)
	if u, err := url.Parse(text); err == nil && u.User != nil {
		_, has := u.User.Password()
		within = within || has
	}
	if own && within {
		s.errorf("upstream", "has a password in it, and there is another key for one: leave it out of upstream")
		return nil, ""
	}
	parsed, err := pgx.ParseConfig(text)
	if err != nil {
		s.errorf("upstream", "is not a PostgreSQL connection string: %v", err)
		return nil, ""
	}
	attrs := "any"
	if match := sessionAttrsPattern.FindStringSubmatch(text); match != nil {
		attrs = match[1]
	}
	if !own {
		if value, ok := s.file.getenv("DAYPASS_UPSTREAM_PASSWORD"); ok && !within {
			parsed.Password = value
		}
		return parsed, attrs
	}
	if secret, ok := s.secret("upstream_password", "upstream_password_env", "upstream_password_file", false); ok {
		parsed.Password = secret.Reveal()
	}
	return parsed, attrs
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

func parsePrefix(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// isHostName says whether a client could look the name up: labels of letters,
// digits, hyphens and underscores, with dots between them.
func isHostName(name string) bool { return len(name) <= 253 && hostPattern.MatchString(name) }

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
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

// duration limits of a role session, API_CreateRole.
const (
	leastSession = time.Hour
	mostSession  = 12 * time.Hour
)
