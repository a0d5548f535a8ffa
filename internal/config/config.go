// Package config reads and checks the configuration file. The result is parsed values:
// no other package of the server sees YAML. An error names every fault at once, each
// with file, line and key.
//
// The tables of keys (table*.go) describe the file; the reader, the JSON schema and
// docs/configuration.md are derived from them. The file is read strictly: an unknown
// key, a duplicate key, a value of the wrong form or a key without a value is an error,
// because a setting that is silently ignored could be a restriction.
package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/filemode"
)

// Config is the configuration file, read and checked. The server gives each package its
// own Config of parsed values instead.
type Config struct {
	Path    string // of the file, as given
	Account string
	Region  string
	Data    string // absolute
	Keyring string // absolute: the file

	API      API
	Gateway  Gateway
	Admin    Admin
	Metrics  Metrics
	Audit    Audit
	Tracing  Tracing
	Registry Registry
	RootKey  *RootKey // nil: the keys are a file in Data
	Peers    *Peers   // nil: no listener
	SignIn   SignIn
	Console  bool
	Clusters []Cluster

	Directory *directory.Directory
	// Warnings are about settings that are valid but probably not intended, with file and
	// line.
	Warnings []string
	// Files are the configuration file and the files it names, as they were when
	// they were read.
	Files []File

	// Common is a hash of the settings that must be the same on all servers: all except the
	// addresses, paths and certificates that each server has for itself.
	Common [sha256.Size]byte
	// Parts are hashes of the parts of Common that the file sets, such as "region" and
	// "clusters.session_limits".
	Parts map[string][sha256.Size]byte

	lines  map[string]int    // the line of each key in the file
	fixed  map[string]string // values that only a restart can change, by key
	inline string            // where a secret is written in the file itself; empty: nowhere
}

var (
	accountPattern    = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	identifierPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	iamNamePattern    = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	iamPathPattern    = regexp.MustCompile(`^/([\x21-\x7e]{1,510}/)?$`)
	accessKeyPattern  = regexp.MustCompile(`^\w{16,128}$`)
	serialPattern     = regexp.MustCompile(`^[\w+=/:,.@-]{9,256}$`) // as API_GetSessionToken takes it
)

// ErrUnreadable is wrapped by the error of Load when the file itself cannot be read.
var ErrUnreadable = errors.New("reading the configuration")

// Load reads the configuration file. The error names every fault found, each with
// file, line and key, one to a line.
func Load(path string) (*Config, error) {
	return LoadEnv(path, os.LookupEnv)
}

// LoadEnv is Load with another function in place of os.LookupEnv.
func LoadEnv(path string, getenv func(string) (string, bool)) (*Config, error) {
	return load(path, getenv, false)
}

// LoadNames is Load for commands that read only names and policies. The variables and files that hold
// secrets need not be there; a secret that cannot be read has a value that is valid for its key.
func LoadNames(path string) (*Config, error) {
	return load(path, SomeSecret, true)
}

func load(path string, getenv func(string) (string, bool), anySecret bool) (*Config, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	file := readFile(absolute)
	if file.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, file.err)
	}
	c, err := parse(path, file.data, getenv, anySecret)
	if err != nil {
		return nil, err
	}
	if !file.regular() {
		return c, nil
	}
	c.Files = append([]File{file.file}, c.Files...)
	kind, place := filemode.Public, path+":1"
	if c.inline != "" {
		kind, place = filemode.Private, c.inline
	}
	if fault := filemode.Check(absolute, file.file.info, kind); fault != nil && kind == filemode.Private {
		c.Warnings = append([]string{fmt.Sprintf("%s: is a secret, and %v", place, fault)}, c.Warnings...)
	} else if fault != nil {
		c.Warnings = append([]string{fmt.Sprintf("%s: %v", place, fault)}, c.Warnings...)
	}
	return c, nil
}

// Parse is Load for a configuration in memory. Messages use path as its name, and relative
// paths in the configuration start at path's directory.
func Parse(path string, data []byte, getenv func(string) (string, bool)) (*Config, error) {
	return parse(path, data, getenv, false)
}

func parse(path string, data []byte, getenv func(string) (string, bool), anySecret bool) (*Config, error) {
	f, err := newYAMLFile(path, getenv)
	if err != nil {
		return nil, err
	}
	f.anySecret = anySecret
	root, err := f.document(data)
	if err != nil {
		return nil, err
	}
	c := &Config{Path: path, lines: f.lines, fixed: map[string]string{}}
	top := f.open(root, "", fileKeys)
	spec := c.read(top)
	if len(f.faults) == 0 {
		if c.Directory, err = directory.New(*spec); err != nil {
			// Names were checked above, and their errors have lines. Other errors have none.
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	for _, w := range policyWarnings(spec) {
		f.warnings = append(f.warnings, warning{w.Line, located(w)})
	}
	slices.SortStableFunc(f.warnings, func(a, b warning) int { return a.line - b.line })
	for _, w := range f.warnings {
		c.Warnings = append(c.Warnings, w.text)
	}
	c.inline = f.inline
	canonical(fileKeys, top, "", restart, func(key, value string) { c.fixed[key] = value })
	c.Common, c.Parts = common(top)
	for _, file := range f.files {
		if file.regular() {
			c.Files = append(c.Files, file.file)
		}
	}
	slices.SortFunc(c.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return c, nil
}

// SomeSecret stands for the environment in commands that do not use its secrets. A variable that is
// not set gets the value someSecret.
func SomeSecret(name string) (string, bool) {
	if value, ok := os.LookupEnv(name); ok && value != "" {
		return value, true
	}
	return someSecret, true
}

// someSecret is valid both as a password and as the seed of an MFA device.
const someSecret = "AAAAAAAAAAAAAAAA"

// Fault returns err as a fault of a key's value, with file and line. If the file does not
// have the key, the line is that of the section the key belongs to.
func (c *Config) Fault(key string, err error) error {
	if c.Path == "" {
		return fmt.Errorf("%s: %w", key, err)
	}
	for place := key; place != ""; {
		if line := c.lines[place]; line > 0 {
			return fmt.Errorf("%s:%d: %s: %w", c.Path, line, key, err)
		}
		place = place[:max(0, strings.LastIndexAny(place, ".["))]
	}
	return fmt.Errorf("%s:1: %s: %w", c.Path, key, err)
}

// read takes the values from the checked file, and reports faults that the tables of keys
// cannot express.
func (c *Config) read(top *section) *directory.Spec {
	c.Account = top.text("account")
	c.Region = top.text("region")
	if data := top.text("data"); data != "" {
		c.Data = top.file.resolve(data)
		c.Keyring = filepath.Join(c.Data, "keyring.json")
	}
	if keys := top.text("keyring"); keys != "" {
		c.Keyring = top.file.resolve(keys)
	}
	if s := top.sub("api"); s != nil {
		c.API.read(s)
	}
	if s := top.sub("gateway"); s != nil {
		c.Gateway.read(s)
	}
	if s := top.sub("admin"); s != nil {
		c.Admin.read(s)
	}
	if s := top.sub("metrics"); s != nil {
		c.Metrics.read(s)
	}
	c.Audit.read(top.subOrDefaults("audit"))
	if s := top.sub("tracing"); s != nil {
		c.Tracing.read(s)
	}
	if s := top.sub("registry"); s != nil {
		c.Registry.read(s)
	}
	if s := top.sub("root_key"); s != nil {
		c.RootKey = &RootKey{}
		c.RootKey.read(s)
		if c.Registry.Etcd == nil {
			top.errorf("root_key", "needs registry.etcd, where the servers share keys; one server alone needs neither")
		}
	}
	if s := top.sub("peers"); s != nil {
		c.Peers = &Peers{Listen: s.text("listen"), Advertise: s.text("advertise")}
		if c.RootKey == nil {
			top.errorf("peers", "needs root_key: without it servers do not know one another")
		}
	}
	spec := &directory.Spec{Account: c.Account, Region: c.Region}
	seen := map[string]bool{}
	clusters := top.sections("clusters")
	for _, s := range clusters {
		c.readCluster(s, len(clusters) == 1, spec, seen)
	}
	c.warnOfSharing(clusters)
	if s := top.sub("iam"); s != nil {
		readIAM(s, spec)
	}
	if s := top.sub("sign_in"); s != nil {
		c.SignIn.read(s, spec)
	}
	if c.Console = top.boolean("console"); c.Console && !top.has("sign_in") {
		top.errorf("console", "needs sign_in: people sign in to the console with their company's account")
	}
	return spec
}
