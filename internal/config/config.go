// Package config reads the configuration file and checks it. What comes out is
// parsed values: nothing else in the program sees YAML. Every fault is named with
// file, line and key, and all of them at once.
//
// The file is read strictly: an unknown key, a key that appears twice or a value of
// the wrong form is an error, since a key that is silently ignored could have been
// a restriction.
package config

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/daypass/daypass/internal/directory"
)

// Config is the configuration file, read and checked. Its shape is described in
// docs/operations.md. Packages never see it: serve hands each of them its own
// Config of parsed values.
type Config struct {
	Path    string // of the file, as given
	Account string
	Region  string
	Data    string // absolute

	API      API
	Gateway  Gateway
	Admin    Admin
	Tracing  Tracing
	Registry Registry
	Clusters []Cluster

	Directory *directory.Directory
	// Warnings are what a policy can hardly have meant, with file and line.
	Warnings []string

	lines map[string]int // of the keys that a start or a reload can still fail on
}

type API struct {
	Listen         string
	TLS            CertificateFiles
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	Limits         Limits
}

type Gateway struct {
	Listen    string
	TLS       CertificateFiles // empty: the gateway's own CA makes one
	Advertise Endpoint
}

// CertificateFiles are two PEM files, absolute; both or neither.
type CertificateFiles struct{ Certificate, Key string }

func (f CertificateFiles) Given() bool { return f.Certificate != "" }

// Endpoint is where clients are told to log on.
type Endpoint struct {
	Host string
	Port int
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

// Load reads the configuration file. The error names every fault found,
// each with file, line and key.
func Load(path string) (*Config, error) {
	return LoadEnv(path, os.LookupEnv)
}

func LoadEnv(path string, getenv func(string) (string, bool)) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data, getenv)
}

// SomeSecret stands for secrets in the environment of the server, which a command
// that reads names and policies only does without. The value passes for a
// password and for the seed of an MFA device.
func SomeSecret(name string) (string, bool) {
	if value, ok := os.LookupEnv(name); ok && value != "" {
		return value, true
	}
	return "AAAAAAAAAAAAAAAA", true
}

// Parse is Load for a text at hand; path is what messages call it and
// what relative paths in it start from.
func Parse(path string, data []byte, getenv func(string) (string, bool)) (*Config, error) {
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
	c := &Config{Path: path}
	c.read(top)
	top.done()
	if err := f.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// noteLines remembers where keys stand.
func (c *Config) noteLines(s *section, keys ...string) {
	for _, key := range keys {
		if node := s.at[key]; node != nil {
			c.lines[s.path(key)] = node.Line
		}
	}
}

// Fault says that err came of a key's value, with file and line where a file has
// them.
func (c *Config) Fault(key string, err error) error {
	switch line := c.lines[key]; {
	case c.Path == "":
		return fmt.Errorf("%s: %w", key, err)
	case line == 0:
		return fmt.Errorf("%s: %s: %w", c.Path, key, err)
	default:
		return fmt.Errorf("%s:%d: %s: %w", c.Path, line, key, err)
	}
}

func (c *Config) read(top *section) {
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

func (a *API) read(s *section) {
	a.Listen = s.listenAddress("listen")
	a.TLS = s.certificate("tls")
	if host, _, err := net.SplitHostPort(a.Listen); err == nil && !IsLoopback(host) && !a.TLS.Given() && !s.has("tls") {
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

func (g *Gateway) read(s *section) {
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
	g.Advertise = Endpoint{Host: host, Port: number}
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
func (s *section) certificate(key string) CertificateFiles {
	sub := s.sub(key)
	if sub == nil {
		return CertificateFiles{}
	}
	defer sub.done()
	return sub.pair()
}

// pair reads the two paths of a section.
func (s *section) pair() CertificateFiles {
	files := CertificateFiles{Certificate: s.required("certificate"), Key: s.required("key")}
	if files.Certificate == "" || files.Key == "" {
		return CertificateFiles{}
	}
	files.Certificate, files.Key = s.file.resolve(files.Certificate), s.file.resolve(files.Key)
	if s.readable("certificate", files.Certificate) && s.readable("key", files.Key) {
		if _, err := tls.LoadX509KeyPair(files.Certificate, files.Key); err != nil {
			s.errorf("certificate", "%s and %s are not a certificate and its key: %v", files.Certificate, files.Key, err)
		}
	}
	return files
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

// IsLoopback says whether only this machine can reach a listener on host.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
